r"""The choice that a response gives, by MMLU-Pro's own rule.

The rule of compute_accuracy.py (level l2), evaluate_from_local.py and
evaluate_from_api.py of TIGER-AI-Lab/MMLU-Pro at f418b116db00; X is one of the
capitals A to J:

1. X of the first `answer is X` or `answer is (X)`.
2. Without one, X of the last `answer: X` or `Answer: X` on the first line that
   has any; blanks and line ends may stand before the X.
3. Without one, the last X that is a word by itself.

Nothing found is no answer. There the benchmark draws a letter, which would
reward noise: here it is worth 0.

What follows from the rule and is kept: 1 and 2 do not ask for the end of a word
(`answer is Because` gives B); 1 takes the first answer, so a correction after
it is not read; `answer is **C**`, `answer is: C`, `\boxed{C}` and `ANSWER: C`
are left to 3, which also takes the pronoun I and the article A for answers. A
letter beyond the question's choices is a wrong answer like any other.
"""

import re

LETTERS = 'ABCDEFGHIJ'

_ANSWER_IS = re.compile(r'answer is \(?([A-J])')
# From the start of a line: the benchmark's pattern, unanchored, finds the same
# in time quadratic in the longest line.
_ANSWER_COLON = re.compile(r'^.*[aA]nswer:\s*([A-J])', re.MULTILINE)
_ALONE = re.compile(r'\b[A-J]\b')


def extract(text: str) -> str:
  """The letter, A to J, that a text gives as its answer; '' if none."""
  match = _ANSWER_IS.search(text) or _ANSWER_COLON.search(text)
  if match:
    return match[1]
  return (_ALONE.findall(text) or [''])[-1]
