"""Reading continuations against a shared prefix equals reading each whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from erp_jax.core import errors
from erp_jax.models import decoder, decoder_weights
from erp_jax.models import params as params_lib
from erp_jax.score import reader as reader_lib

_MODEL = decoder.DecoderConfig(
  vocab_size=120,
  num_layers=2,
  width=32,
  mlp=48,
  heads=4,
  kv_heads=2,
  head_dim=8,
  rope_theta=1e4,
  norm_eps=1e-5,
  tied=True,
  max_position=600,
)


@pytest.fixture(scope='module')
def params():
  tree = params_lib.init(
    decoder_weights.declare(_MODEL), jax.random.key(1), jnp.float32
  )
  return tree | {'embed_VD': tree['embed_VD'] * 20}


def _reader(params, batch_tokens=256):
  return reader_lib.Reader(_MODEL, params, None, batch_tokens)


def _groups(seed=0):
  """Groups of different sizes, prefixes and continuations of many lengths."""
  rng = np.random.default_rng(seed)
  draw = lambda lo, hi: rng.integers(0, 120, rng.integers(lo, hi)).tolist()
  return [
    reader_lib.Group(draw(1, 60), [draw(1, 45) for _ in range(size)])
    for size in (1, 3, 5, 2, 4, 1, 5)
  ]


def _logits(params, ids):
  """Logits after each id of one sequence, by the full forward pass."""
  padded = np.zeros(128, int)
  padded[: len(ids)] = ids
  return np.float64(_padded_logits(params, padded)[: len(ids)])


@jax.jit
def _padded_logits(params, token_T):
  hidden_PTD, _ = decoder.prefill(params, _MODEL, token_T[None])
  return decoder.logits(params, _MODEL, hidden_PTD)[0]


def _ignore(n, positions=0):
  del n, positions


def test_mean_logprob_equals_the_full_forward(params):
  groups = _groups()
  got = _reader(params).mean_logprob(groups, _ignore)
  worst = 0.0
  for group, value_J in zip(groups, got, strict=True):
    assert len(value_J) == len(group.suffixes)
    for suffix, value in zip(group.suffixes, value_J, strict=True):
      if len(suffix) == 1:
        assert np.isnan(value)  # Nothing follows the conditioning token.
        continue
      logits_TV = _logits(params, [*group.prefix, *suffix])
      logp_TV = special.log_softmax(logits_TV, axis=-1)
      start = len(group.prefix)
      each = [logp_TV[start + t, suffix[t + 1]] for t in range(len(suffix) - 1)]
      worst = max(worst, abs(np.mean(each) - value))
  assert worst < 2e-5


def test_yes_minus_no_equals_the_full_forward(params):
  groups = _groups(1)
  got = _reader(params).yes_minus_no(groups, 17, 94, _ignore)
  for group, value_J in zip(groups, got, strict=True):
    for suffix, value in zip(group.suffixes, value_J, strict=True):
      last_V = _logits(params, [*group.prefix, *suffix])[-1]
      assert abs(last_V[17] - last_V[94] - value) < 2e-5


@pytest.mark.parametrize('batch_tokens', [1, 200, 5000])
def test_batches_and_padding_change_nothing(params, batch_tokens):
  """Each continuation alone, against any batch: 1e-5."""
  groups = _groups(2)
  batched = _reader(params, batch_tokens).mean_logprob(groups, _ignore)
  for group, value_J in zip(groups, batched, strict=True):
    for suffix, value in zip(group.suffixes, value_J, strict=True):
      alone = _reader(params, 1).mean_logprob(
        [reader_lib.Group(group.prefix, [suffix])], _ignore
      )
      np.testing.assert_allclose(alone[0][0], value, atol=1e-5)


def test_without_a_prefix_and_more_continuations_than_are_read_at_once(params):
  rng = np.random.default_rng(4)
  rows = [rng.integers(0, 120, n).tolist() for n in rng.integers(1, 60, 21)]
  assert reader_lib.group(rows).prefix == []
  got = _reader(params).mean_logprob([reader_lib.Group([], rows)], _ignore)[0]
  for row, value in zip(rows, got, strict=True):
    logp_TV = special.log_softmax(_logits(params, row), axis=-1)
    each = [logp_TV[t, row[t + 1]] for t in range(len(row) - 1)]
    assert len(row) == 1 or abs(np.mean(each) - value) < 2e-5


def test_progress_and_positions_are_all_told(params):
  told = []
  groups = _groups(3)
  _reader(params).mean_logprob(
    groups, lambda n, positions=0: told.append((n, positions))
  )
  responses, positions = np.sum(told, axis=0)
  assert responses == sum(len(g.suffixes) for g in groups)
  assert positions == sum(
    len(g.prefix) + sum(map(len, g.suffixes)) for g in groups
  )


def test_too_long_is_refused(params):
  group = reader_lib.Group([1] * 590, [[2] * 20])
  with pytest.raises(errors.UserError, match='610 tokens do not fit'):
    _reader(params).mean_logprob([group], _ignore)
