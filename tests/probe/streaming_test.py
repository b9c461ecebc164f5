"""Streamed ridge against the batch fit, which scikit-learn checks.

Run as a program it is the process of eight devices that one test starts.
"""

import dataclasses
import json
import logging
import os
import pathlib
import subprocess
import sys
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from erp_jax.core import errors, runtime, sharding
from erp_jax.probe import moments, ridge, streaming

_STREAM = moments.StreamConfig(rows=64)
_FLOAT32 = dataclasses.replace(_STREAM, dtype='float32')
_FIXED = ridge.RidgeConfig()
_LOO = ridge.RidgeConfig(selection='leave_one_out')
# Prompts, width, whether embeddings are raw, and whether rewards are missing.
_CASES = {
  'tall': (400, 48, False, False),
  'wide': (60, 96, False, False),
  'raw': (400, 48, True, False),
  'wide raw': (60, 96, True, False),
  'missing': (400, 48, False, True),
  'wide missing': (60, 96, False, True),
}
_TOLERANCE = {'float64': 1e-9, 'float32': 1e-5}


def _problem(case, seed=0):
  """emb_NE with a falling spectrum, norm 20 where raw, and reward_NM."""
  num, width, is_raw, is_missing = _CASES[case]
  rng = np.random.default_rng(seed)
  scale_E = (1 + np.arange(width)) ** -0.5
  x_NE = rng.normal(size=(num, width)) * scale_E / np.linalg.norm(scale_E)
  mean_E = np.full(width, (20 if is_raw else 1) / np.sqrt(width))
  theta_EM = np.random.default_rng(1).normal(size=(width, 3)) * [3, 1, 10]
  reward_NM = x_NE @ theta_EM + rng.normal(size=(num, 3)) - 4
  if is_missing:
    reward_NM[:7, 0] = np.nan
    reward_NM[5:20:2, 2] = np.nan
    reward_NM[30:33] = np.nan  # Nobody's.
  return (x_NE + mean_E).astype(np.float32), reward_NM


def _config(case, cfg):
  embedding = 'raw' if _CASES[case][2] else 'unit'
  return dataclasses.replace(cfg, embedding=embedding)


def _shards(emb_NE, reward_NM, ends=(1, 4, 39, 41)):
  """Shards of 1, 3, 35, 2 prompts, and one of all the rest."""
  return list(
    zip(np.split(emb_NE, ends), np.split(reward_NM, ends), strict=True)
  )


def _difference(got, want, case):
  """Largest difference of predictions on new prompts, in their spreads."""
  emb_NE, _ = _problem(case, seed=5)
  got_NM, want_NM = (ridge.predict(probe, emb_NE) for probe in (got, want))
  return float((np.abs(got_NM - want_NM) / want_NM.std(axis=0)).max())


@pytest.mark.parametrize('stream', [_STREAM, _FLOAT32], ids=lambda s: s.dtype)
@pytest.mark.parametrize('case', _CASES)
def test_predictions_are_the_batch_fits(case, stream):
  cfg = _config(case, _FIXED)
  emb_NE, reward_NM = _problem(case)
  want = ridge.fit(emb_NE, reward_NM, cfg)
  got = streaming.fit_stream(_shards(emb_NE, reward_NM), cfg, stream).probe
  assert _difference(got, want, case) <= _TOLERANCE[stream.dtype]
  assert got.num_prompts_M.tolist() == want.num_prompts_M.tolist()
  assert got.beta_M.tolist() == want.beta_M.tolist()
  assert got.betas_A.tolist() == want.betas_A.tolist()
  assert got.embedding == want.embedding
  assert np.isnan(got.loo_mse_AM).all()
  assert got.loo_mse_AM.shape == want.loo_mse_AM.shape


@pytest.mark.parametrize(
  ('case', 'loss', 'intercept'),
  [(case, 'sum', True) for case in _CASES]
  + [
    (case, loss, intercept)
    for case in ('raw', 'wide missing')
    for loss, intercept in (('mean', True), ('sum', False))
  ],
)
def test_leave_one_out_is_the_batch_fits(case, loss, intercept):
  cfg = _config(case, _LOO)
  cfg = dataclasses.replace(cfg, loss=loss, intercept=intercept)
  emb_NE, reward_NM = _problem(case)
  want = ridge.fit(emb_NE, reward_NM, cfg)
  got = streaming.fit_stream(_shards(emb_NE, reward_NM), cfg, _STREAM).probe
  np.testing.assert_allclose(got.loo_mse_AM, want.loo_mse_AM, rtol=1e-7)
  assert got.beta_M.tolist() == want.beta_M.tolist()
  assert _difference(got, want, case) <= 1e-9


@pytest.mark.parametrize('case', _CASES)
def test_float32_products_choose_the_same_penalties(case):
  cfg = _config(case, _LOO)
  emb_NE, reward_NM = _problem(case)
  want = ridge.fit(emb_NE, reward_NM, cfg)
  got = streaming.fit_stream(_shards(emb_NE, reward_NM), cfg, _FLOAT32).probe
  # The smallest penalties are the worst, where 1 - leverage cancels.
  np.testing.assert_allclose(got.loo_mse_AM, want.loo_mse_AM, rtol=1e-3)
  assert got.beta_M.tolist() == want.beta_M.tolist()
  assert _difference(got, want, case) <= 1e-5


def test_an_uncentred_float32_gram_would_not_do():
  cfg = _config('raw', _FIXED)
  emb_NE, reward_NM = _problem('raw')
  want = ridge.fit(emb_NE, reward_NM, cfg)
  mean_E = emb_NE.mean(axis=0, dtype=np.float64)
  target_NM = (reward_NM - reward_NM.mean(axis=0)).astype(np.float32)
  product = lambda y: np.asarray(
    jnp.matmul(emb_NE.T, y, precision='highest'), np.float64
  )
  gram_EE = product(emb_NE) - len(emb_NE) * np.outer(mean_E, mean_E)
  theta_EM = np.linalg.solve(gram_EE + np.eye(48), product(target_NM))
  bias_M = reward_NM.mean(axis=0) - mean_E @ theta_EM
  uncentred = dataclasses.replace(want, theta_EM=theta_EM, bias_M=bias_M)
  assert _difference(uncentred, want, 'raw') > 1e-4
  shards = _shards(emb_NE, reward_NM)
  centred = streaming.fit_stream(shards, cfg, _FLOAT32).probe
  assert _difference(centred, want, 'raw') < 1e-5


@pytest.mark.parametrize('stream', [_STREAM, _FLOAT32], ids=lambda s: s.dtype)
@pytest.mark.parametrize('case', ['raw', 'wide missing'])
def test_the_order_of_shards_does_not_matter(case, stream):
  cfg = _config(case, _FIXED)
  shards = _shards(*_problem(case))
  first = streaming.fit_stream(shards, cfg, stream).probe
  second = streaming.fit_stream(shards[::-1], cfg, stream).probe
  assert _difference(first, second, case) <= 1e-6


def test_many_shards_keep_the_digits():
  cfg = _config('raw', _FIXED)
  emb_NE, reward_NM = _problem('raw')
  want = ridge.fit(emb_NE, reward_NM, cfg)
  shards = _shards(emb_NE, reward_NM, range(1, 400))
  got = streaming.fit_stream(shards, cfg, _FLOAT32).probe
  assert _difference(got, want, 'raw') <= 1e-5


def test_the_condition_number_is_stated(caplog):
  emb_NE, reward_NM = _problem('missing')
  cfg = dataclasses.replace(_FIXED, beta=1e-4)
  shards = _shards(emb_NE, reward_NM)
  with caplog.at_level(logging.INFO):
    got = streaming.fit_stream(shards, cfg, _STREAM)
  for m in range(3):
    x_NE = ridge.prepare(emb_NE[np.isfinite(reward_NM[:, m])], 'unit')
    x_NE -= x_NE.mean(axis=0)
    want = np.linalg.cond(x_NE.T @ x_NE + 1e-4 * np.eye(48))
    assert got.condition_M[m] == pytest.approx(want, rel=1e-9)
  (line,) = [record.getMessage() for record in caplog.records]
  assert line == (
    'Ridge of 397 prompts in 5 shards (3 without rewards left out), 4 patterns '
    f'of missing rewards: condition number {got.condition_M.max():.3g}.'
  )


def test_few_digits_are_warned_of(caplog):
  cfg = ridge.RidgeConfig(beta=1e-4)
  shards = _shards(*_problem('wide'))
  streaming.fit_stream(shards, cfg, _FLOAT32)
  (line,) = [record.getMessage() for record in caplog.records]
  assert 'use stream.dtype=float64, or a larger penalty' in line


class _Killed(Exception):
  pass


def _block(num, width, stream):
  shard = moments.Prepared(
    np.ones((num, width)), np.ones(num), np.ones((num, 3))
  )
  return next(moments.blocks(shard, np.arange(num), shard.reward_NM, stream))


def _until(shards, stop):
  """The shards before `stop`, then a kill."""
  yield from shards[:stop]
  raise _Killed


@pytest.mark.parametrize('case', ['raw', 'wide missing'])
@pytest.mark.parametrize('stop', [1, 3, 5])
def test_a_killed_fit_goes_on_to_the_same_bits(tmp_path, case, stop):
  cfg = _config(case, _FIXED)
  stream = dataclasses.replace(_STREAM, save_secs=0)
  shards = _shards(*_problem(case))
  want = streaming.fit_stream(shards, cfg, stream)
  args = (cfg, stream, (), tmp_path / 'state', 'a')
  with pytest.raises(_Killed):
    streaming.fit_stream(_until(shards, stop), *args)
  poison = [(x * np.nan, y) for x, y in shards[:stop]]  # Not to be read again.
  got = streaming.fit_stream(poison + shards[stop:], *args)
  for name in ('theta_EM', 'bias_M', 'num_prompts_M'):
    mine, other = getattr(got.probe, name), getattr(want.probe, name)
    assert mine.tobytes() == other.tobytes()
  held = (tmp_path / 'state').read_bytes()
  again = streaming.fit_stream(poison + shards[stop:], *args)
  assert again.probe.theta_EM.tobytes() == want.probe.theta_EM.tobytes()
  assert (tmp_path / 'state').read_bytes() == held


def test_totals_are_saved_now_and_then(tmp_path):
  rare = dataclasses.replace(_STREAM, save_secs=1e6)
  shards = _shards(*_problem('tall'))
  with pytest.raises(_Killed):
    state = tmp_path / 'state'
    streaming.fit_stream(_until(shards, 4), _FIXED, rare, (), state)
  assert not state.exists()


def test_another_state_is_refused(tmp_path):
  state = tmp_path / 'state'
  shards = _shards(*_problem('tall'))
  streaming.fit_stream(shards, _FIXED, _STREAM, (), state, 'a')
  with pytest.raises(errors.UserError, match='source = "a", now it is "b"'):
    streaming.fit_stream(shards, _FIXED, _STREAM, (), state, 'b')
  with pytest.raises(errors.UserError, match='dtype = "float64"'):
    streaming.fit_stream(shards, _FIXED, _FLOAT32, (), state, 'a')
  with pytest.raises(errors.UserError, match='holds 5 shards, but there are 2'):
    streaming.fit_stream(shards[:2], _FIXED, _STREAM, (), state, 'a')
  good = state.read_bytes()
  for bad in (good[:-1], good[:-9] + b'\xff' + good[-8:], b'', b'{}' * 40):
    state.write_bytes(bad)
    with pytest.raises(errors.UserError, match='is damaged: delete it'):
      streaming.fit_stream(shards, _FIXED, _STREAM, (), state, 'a')


def test_patterns_are_bounded():
  emb_NE, reward_NM = _problem('missing')
  totals = moments.Totals('unit', dataclasses.replace(_STREAM, max_patterns=3))
  totals.add(emb_NE[10:], reward_NM[10:])
  before = totals.merged(np.ones(2, bool))
  with pytest.raises(
    errors.UserError,
    match=r'shard 1 .*4 patterns .*max_patterns is 3: fit fewer arms',
  ):
    totals.add(emb_NE[:10], reward_NM[:10])
  after = totals.merged(np.ones(2, bool))
  assert (totals.num_shards, before.num) == (1, after.num)
  assert before.gram_YY.tobytes() == after.gram_YY.tobytes()


def test_bad_shards_are_named():
  emb_NE, reward_NM = _problem('tall')
  shards = _shards(emb_NE, reward_NM)
  emb_NE[9, 3] = np.nan  # Row 5 of shard 2.
  with pytest.raises(
    errors.UserError, match=r'shard 2 .* prompts 5 .* not fin'
  ):
    streaming.fit_stream(shards, _FIXED, _STREAM)
  other = [shards[0], (shards[1][0][:, :7], shards[1][1])]
  with pytest.raises(errors.UserError, match='shard 1 .* 7 features .* 48'):
    streaming.fit_stream(other, _FIXED, _STREAM)
  with pytest.raises(errors.UserError, match='there are no shards'):
    streaming.fit_stream([], _FIXED, _STREAM)
  with pytest.raises(errors.UserError, match="^arm 'a' has 1 training"):
    streaming.fit_stream(shards[:1], _FIXED, _STREAM, ('a', 'b', 'c'))


def test_leave_one_out_needs_the_shards_twice():
  shards = _shards(*_problem('tall'))
  with pytest.raises(errors.UserError, match='reads the shards twice'):
    streaming.fit_stream(iter(shards), _LOO, _STREAM)
  totals = moments.Totals('unit', _STREAM)
  for shard in shards:
    totals.add(*shard)
  with pytest.raises(errors.UserError, match='pass has 41 .*first had 400'):
    streaming.solve(totals, _LOO, shards=shards[:4])
  fixed = streaming.fit_stream(iter(shards), _FIXED, _STREAM)
  assert np.isfinite(fixed.probe.theta_EM).all()


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'dtype': 'bfloat16'}, "stream.dtype is 'bfloat16'; allowed: float64, fl"),
    ({'rows': 8}, 'stream.rows must be >= 16, got 8'),
    ({'max_patterns': 0}, 'stream.max_patterns must be >= 1'),
    ({'save_secs': float('nan')}, 'stream.save_secs must be >= 0, got nan'),
  ],
)
def test_config_errors_name_the_value(changes, message):
  with pytest.raises(errors.UserError, match=message):
    moments.StreamConfig(**changes)


def test_products_are_asked_for_in_full_precision():
  # A CPU multiplies float32 in full whatever it is asked; a TPU does not.
  with jax.default_matmul_precision('default'):
    text = moments._gram.lower(*_block(16, 5, _FLOAT32)).as_text()
  num_products = text.count('stablehlo.dot_general')
  assert num_products == text.count('precision = [HIGHEST, HIGHEST]') > 1


def test_few_programs_are_compiled():
  emb_NE, reward_NM = _problem('tall')
  counter = runtime.CompileCounter()
  ends = np.cumsum(np.arange(1, 25))  # Shards of 1 to 24 prompts, then 100.
  shards = _shards(emb_NE[:, :37], reward_NM, ends)
  streaming.fit_stream(shards, _FIXED, _STREAM)
  # Blocks of 16, 24, 32 and 64: `rows` is 64, and 100 is 64 + 36.
  assert 1 <= counter.programs <= 5


def test_memory_does_not_grow_with_prompts():
  emb_NE, reward_NM = _problem('tall')

  class Repeated:
    def __init__(self, times):
      self.times = times

    def __iter__(self):
      return ((emb_NE.copy(), reward_NM.copy()) for _ in range(self.times))

  def peak(times):
    tracemalloc.start()
    streaming.fit_stream(Repeated(times), _LOO, _STREAM)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak

  peak(1)
  assert peak(40) < 1.1 * peak(4)


@pytest.mark.slow
def test_eight_devices_agree_with_one():
  root = pathlib.Path(__file__).parents[2]
  done = subprocess.run(
    [sys.executable, __file__],
    capture_output=True,
    text=True,
    cwd=root,
    env={
      **os.environ,
      'PYTHONPATH': str(root),
      'XLA_FLAGS': '--xla_force_host_platform_device_count=8',
    },
  )
  assert done.returncode == 0, done.stderr
  result = json.loads(done.stdout.splitlines()[-1])
  assert list(result) == ['8 x 1', '3 x 1', '4 x 2']
  for name, (rows, has_collective, prediction, error) in result.items():
    # 64 rows are filled up to 66 where three devices share them.
    assert rows == {'8 x 1': 8, '3 x 1': 22, '4 x 2': 16}[name]
    assert has_collective
    assert prediction <= 1e-9 and error <= 1e-8, name


def _on_meshes():
  """By mesh: rows on a device, whether Grams are added up, and differences."""
  cfg = _config('wide missing', _LOO)
  shards = _shards(*_problem('wide missing'), [30])
  want = streaming.fit_stream(shards, cfg, _STREAM).probe
  result = {}
  for data, model in ((8, 1), (3, 1), (4, 2)):
    with jax.set_mesh(sharding.make_mesh(data, model)):
      got = streaming.fit_stream(shards, cfg, _STREAM).probe
      block = _block(64, 96, _STREAM)
      with moments.device(_STREAM):
        program = moments._gram.lower(*block).compile().as_text()
    result[f'{data} x {model}'] = (
      # The rows that a device's part of the product has.
      min(n for n in range(1, 67) if f'f64[{n},100]' in program),
      'all-reduce' in program,
      _difference(got, want, 'wide missing'),
      float(np.abs(got.loo_mse_AM / want.loo_mse_AM - 1).max()),
    )
  return result


if __name__ == '__main__':
  assert jax.device_count() == 8
  runtime.start(runtime.RuntimeConfig())
  sys.stdout.write(json.dumps(_on_meshes()) + '\n')
