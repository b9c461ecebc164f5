"""Lines in, lines out: in order, some at a time, mistakes by line number."""

import json
import math
import statistics

import numpy as np
import pytest

from erp_jax.core import errors
from erp_jax.route import policy
from erp_jax.serve import rows


def test_rows_of_json_and_of_text():
  lines = [
    b'\xef\xbb\xbf{"prompt": "one", "id": "a"}\n',
    b'\n',
    '{"prompt": "two\u2028lines", "id": 7, "category": "x"}\n'.encode(),
    b'{"prompt": " three"}',
  ]
  assert list(rows.read(lines, 'f')) == [
    ('a', 'one'),
    (7, 'two\u2028lines'),
    ('', ' three'),
  ]
  text = [b'{"prompt": 1}\r\n', b'  \n', b' two\n']
  assert list(rows.read(text, 'f', is_text=True)) == [
    ('', '{"prompt": 1}'),
    ('', ' two'),
  ]


@pytest.mark.parametrize(
  'line, message',
  [
    (b'{"prompt": "x"', 'f line 2 is not JSON'),
    (b'["x"]', 'line 2 must be an object with a text `prompt`'),
    (b'{"text": "x"}', 'line 2 must be an object with a text `prompt`'),
    (b'{"prompt": 3}', 'line 2 must be an object with a text `prompt`'),
    (b'{"prompt": " "}', 'line 2 has an empty `prompt`'),
    (b'{"prompt": "x", "id": [1]}', 'line 2 has an `id` that is no text'),
    (b'{"prompt": "x", "id": null}', 'line 2 has an `id` that is no text'),
    (b'{"prompt": "\\ud800"}', 'line 2 has half a surrogate pair'),
    (b'{"prompt": "\xff"}', 'line 2 is not UTF-8'),
    (b'[' * 100_000, 'line 2 is not JSON'),
  ],
)
def test_a_bad_row_is_named(line, message):
  found = rows.read([b'{"prompt": "x"}\n', line], 'f')
  assert next(found).prompt == 'x'
  with pytest.raises(errors.UserError, match=message):
    next(found)


def _decide(calls):
  """Arm 1 for prompts with a 1 in them."""

  def decide(prompts, ids):
    calls.append((prompts, ids))
    choice_N = np.array([int('1' in prompt) for prompt in prompts])
    reward_NM = np.array([[0.5, float(len(prompt))] for prompt in prompts])
    return policy.Decision(
      arms=('a', 'b'),
      choice_N=choice_N,
      cost_N=np.array([2.0, 3.0])[choice_N],
      reward_NM=reward_NM,
      std_NM=reward_NM,
      ood_N=choice_N == 0,
    )

  return decide


def test_decisions_come_in_order_and_in_batches():
  calls = []
  asked = [rows.Row('' if i % 2 else f'id {i}', f'p{i}') for i in range(5)]
  asked[2] = rows.Row(0, 'p1')
  lines = list(rows.route(_decide(calls), iter(asked), 2))
  assert calls == [
    (['p0', 'p1'], ['id 0', 'p1']),
    (['p1', 'p3'], ['0', 'p3']),
    (['p4'], ['id 4']),
  ]
  assert [line.arm for line in lines] == ['a', 'b', 'b', 'a', 'a']
  better = statistics.NormalDist().cdf(1.5 / math.hypot(0.5, 2.0))
  assert json.loads(lines[2].json()) == {
    'id': 0,
    'arm': 'b',
    'cost': 3.0,
    'reward': {'a': 0.5, 'b': 2.0},
    'std': {'a': 0.5, 'b': 2.0},
    'p_win': pytest.approx({'a': 1 - better, 'b': better}, abs=1e-12),
    'out_of_distribution': False,
  }
  assert 'id' not in json.loads(lines[1].json())
  assert lines[0].json().endswith('}\n')


def test_a_batch_is_read_when_it_is_asked_for():
  def source():
    yield rows.Row('', 'x')
    yield rows.Row('', 'y')
    raise AssertionError('read too far')

  assert next(rows.route(_decide([]), source(), 2)).arm == 'a'
