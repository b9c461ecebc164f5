"""Responses that say little about an arm: refusals, empty ones, cut ones.

A refusal is told by how the response opens, so this is a heuristic: it misses
refusals in other words, in other languages, or after a preamble, and takes an
honest "I cannot provide live prices" for one. What a model thought before its
answer does not count (`thinking.visible_text`).
"""

import re

import numpy as np
import pyarrow as pa

from erp_jax.data import thinking

REFUSAL, EMPTY, CUT = 'refusal', 'empty', 'cut'
FLAGS = (REFUSAL, EMPTY, CUT)

# An opening is: a regret or none, an "as an AI" or none, then a denial and an
# act; or one of the whole openings.
_REGRETS = (
  *("i'm sorry", 'i am sorry', 'sorry', 'so sorry', "i'm very sorry"),
  *('i apologize', 'i apologise', 'apologies', 'my apologies'),
  *('unfortunately', 'regrettably', "i'm afraid", 'i am afraid'),
)
_ROLES = (
  *('as an ai', 'as an ai model', 'as an ai assistant'),
  *('as an ai language model', 'as a language model', 'as an assistant'),
  *('as a responsible ai', 'as a responsible assistant'),
  *('as a responsible ai assistant', 'as a responsible ai language model'),
)
_DENIALS = (
  *("i can't", 'i cannot', 'i can not', 'i am unable to', "i'm unable to"),
  *('i am not able to', "i'm not able to", "i won't", 'i will not'),
  *('i am not going to', "i'm not going to", "i won't be able to"),
  *('i will not be able to', 'i could not possibly', 'i am not allowed to'),
  *("i'm not allowed to", 'i am not permitted to', "i'm not permitted to"),
)
_ACTS = (
  *('help you', 'help with', 'help anyone', 'help in', 'help to', 'assist'),
  *('provide', 'offer', 'give', 'share', 'supply', 'produce', 'create'),
  *('generate', 'write', 'compose', 'draft', 'answer', 'respond', 'reply'),
  *('fulfill', 'fulfil', 'comply', 'complete', 'continue with', 'carry out'),
  *('do that', 'do this', 'do so', 'discuss', 'engage', 'take part'),
  *('participate', 'support', 'satisfy', 'process', 'describe', 'explain'),
  *('instruct', 'teach', 'tell you', 'advise', 'recommend ways', 'encourage'),
)
_WHOLE = (
  *('i must decline', 'i have to decline', 'i need to decline', 'i decline'),
  *('i must refuse', 'i have to refuse', 'i refuse to', 'i respectfully'),
  *("i'm not comfortable", 'i am not comfortable', "i can't, and i won't"),
  *('this request goes against', 'your request goes against'),
  *('it would be wrong of me to', 'it would be unethical for me to'),
  *('it is against my guidelines', "it's against my guidelines"),
)


def _any(words: tuple[str, ...]) -> str:
  return f'(?:{"|".join(map(re.escape, words))})'


_OPENING = re.compile(
  r'[\W_]*'  # Quotes, emphasis.
  rf'(?:{_any(_REGRETS)}(?:[,.;:!]|\s+but\b|\s+that\b|\s+-)*\s+(?:but\s+)?)?'
  rf'(?:{_any(_ROLES)}\s*,\s*)?'
  rf'(?:{_any(_DENIALS)}\s+(?:\w+ly\s+)?{_any(_ACTS)}|{_any(_WHOLE)})\b',
  re.IGNORECASE,
)


def is_refusal(response: str) -> bool:
  """Whether a response opens as a refusal does."""
  text = thinking.visible_text(response).replace('\u2019', "'")
  return bool(_OPENING.match(text))


def is_empty(response: str) -> bool:
  """Whether a user sees nothing, as when all of it was thought."""
  return not thinking.visible_text(response).strip()


def of_table(table: pa.Table) -> dict[str, np.ndarray]:
  """Masks by flag over the rows of a table of responses (sample.stage)."""
  texts = table['text'].to_pylist()
  reasons = table['finish_reason'].to_pylist()
  return {
    REFUSAL: np.array([is_refusal(text) for text in texts], bool),
    EMPTY: np.array([is_empty(text) for text in texts], bool),
    CUT: np.array([reason == 'length' for reason in reasons], bool),
  }
