"""The cases of scoring at a tiny size, ours and transformers."""

import dataclasses

import pytest

from erp_jax.core import errors
from launch.benchmarks import score, score_ours, score_peers

_READING = score.Reading(num_prompts=2, k=3, batch_tokens=128, peer_rows=4)
_WORK = score.ScoreWork(
  prompt_tokens=12, response_tokens=8, decoder=_READING, deberta=_READING
)


def _check(ours, theirs, tolerance):
  """Rewards differ by more than they are apart from the peer's."""
  assert ours.count == theirs.count == 6
  assert ours.detail['mean_tokens'] == theirs.detail['mean_tokens']
  assert ours.detail['std_reward'] > 2 * tolerance
  for name in ('mean_reward', 'std_reward'):
    assert ours.detail[name] == pytest.approx(
      theirs.detail[name], abs=tolerance
    )


def test_ours_and_transformers_score_the_same_by_a_decoder():
  """Each rounds to bfloat16 in its way, up to .02 off float32's mean."""
  ours = score_ours.prepare_decoder(_WORK)()
  theirs = score_peers.decoder_bfloat16(_WORK)()
  _check(ours, theirs, 0.04)


@pytest.fixture
def small_deberta(monkeypatch):
  """Two layers of width 64 in place of DeBERTa's."""
  small = dataclasses.replace(
    score_ours.DEBERTA,
    vocab_size=30522,
    width=64,
    mlp=96,
    heads=4,
    num_layers=2,
  )
  monkeypatch.setattr(score_ours, 'DEBERTA', small)


@pytest.mark.usefixtures('small_deberta')
def test_ours_and_transformers_score_the_same_by_a_small_deberta():
  ours = score_ours.prepare_deberta(_WORK)()
  _check(ours, score_peers.deberta_float32(_WORK)(), 1e-5)
  rounded = score_peers.deberta_bfloat16(_WORK)()
  assert rounded.count == 6
  mean = rounded.detail['mean_reward']
  assert ours.detail['mean_reward'] == pytest.approx(mean, abs=1e-3)


@pytest.mark.usefixtures('small_deberta')
def test_flops_of_deberta_are_those_that_its_reward_needs():
  """The second layer is for one token but its keys and values."""
  one = dataclasses.replace(_READING, num_prompts=1, k=1)
  done = score_ours.prepare_deberta(dataclasses.replace(_WORK, deberta=one))()
  n = done.detail['mean_tokens']
  square = 64**2 + 64  # A projection with its bias.
  rest = 2 * square + 2 * 64 * 96 + 96 + 64 + 4 * 64  # And the rest of a layer.
  want = 2 * n * (2 * square + rest) + 8 * 64 * n**2
  want += 2 * (n * 2 * square + rest) + 8 * 64 * n
  assert done.flops == pytest.approx(want)


def test_each_kind_is_a_contest():
  names = [contest.case for contest in score.contests(score.ScoreWork())]
  assert names == ['score decoder', 'score deberta']
  with pytest.raises(
    errors.UserError, match=r'score.prompt_tokens must be >= 2'
  ):
    score.ScoreWork(prompt_tokens=1)
  with pytest.raises(
    errors.UserError, match=r'score\..*\.k must be >= 1, got 0'
  ):
    dataclasses.replace(_READING, k=0)
