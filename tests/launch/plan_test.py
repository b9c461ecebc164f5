"""Plans against sums over every token, and against the paper's numbers."""

import dataclasses
import json

import pytest

from erp_jax.core import endpoint, errors
from erp_jax.data import arms
from erp_jax.embed import embedder
from erp_jax.models import catalog, counting
from erp_jax.probe import ridge
from erp_jax.probe import stage as fit_stage
from erp_jax.sample import engine
from erp_jax.sample import stage as sample_stage
from erp_jax.score import rewards
from launch import pipeline_config
from launch.plans import inputs as inputs_lib
from launch.plans import machine as machine_lib
from launch.plans import stages

_SMOLLM2 = 'HuggingFaceTB/SmolLM2-135M-Instruct'
_MINILM = 'sentence-transformers/all-MiniLM-L6-v2'
_N, _K, _P, _R = 3, 4, 7, 5
_ARMS = {name: arms.Arm(model=_SMOLLM2) for name in ('first', 'second')}


def _config(**changes):
  fields = {
    'arms': _ARMS,
    'sample': sample_stage.SampleConfig(
      k=_K, max_new_tokens=9, engine=engine.EngineConfig(slots=2 * _K)
    ),
    'rewards': {
      'judge': rewards.RewardConfig(kind='judge', model=_SMOLLM2),
      'relevance': rewards.RewardConfig(kind='relevance', model=_SMOLLM2),
      'verify': rewards.RewardConfig(kind='verify'),
    },
    'embed': embedder.EmbedConfig(encoder=_MINILM),
  }
  return pipeline_config.Pipeline(**fields | changes)


def _inputs():
  return inputs_lib.Inputs(
    num_prompts=_N,
    prompts=(),
    response_tokens=_R,
    at_most='',
    assumed_tokens=_P,
  )


def _rows(cfg, flops=1.0, bytes=1e30, num_chips=1, inputs=None):
  """By stage and name, on chips that take these rates and reach a half."""
  machine = machine_lib.Machine(
    kind='H100',
    num_chips=num_chips,
    flops=dict.fromkeys(('bfloat16', 'float32', 'float64'), flops),
    bytes=bytes,
    shares=dict.fromkeys(('sample', 'score', 'embed', 'fit'), 0.5),
    source='',
  )
  rows = stages.rows(cfg, machine, inputs or _inputs())
  return {f'{row.stage} {row.name}': row for row in rows}


class _Sum:
  """FLOPs of a SmolLM2 that reads one token after another."""

  def __init__(self):
    config = catalog.CATALOG[_SMOLLM2].config
    self.flops = 0
    self.token = counting.flops_per_token(config)
    self.pair = counting.flops_per_pair(config)
    self.head = counting.head_flops(config)

  def read(self, start, stop, heads=False):
    """Tokens at these places, each with a head if asked for."""
    for place in range(start, stop):
      self.flops += self.token + (place + 1) * self.pair + heads * self.head


def test_sampling_takes_what_each_token_takes():
  row = _rows(_config())['sample first']
  counted = _Sum()
  for _ in range(_N):
    counted.read(0, _P)
    counted.flops += counted.head
    for _ in range(_K):  # The last token is sampled, and never read.
      counted.read(_P, _P + _R - 1, heads=True)
  assert row.flops == pytest.approx(counted.flops, rel=1e-3)
  assert row.secs == 2 * row.limit_secs == pytest.approx(2 * row.flops)
  assert row.tokens == _N * (_P + _K * _R)


def test_sampling_bound_by_memory():
  """All weights for each step, and for each prompts' batch."""
  config = catalog.CATALOG[_SMOLLM2].config
  row = _rows(_config(), flops=1e30, bytes=1.0)['sample first']
  weights = counting.weight_bytes(config, 'bfloat16', 1)
  steps = _N * _K * (_R - 1) / (2 * _K)
  cached = 2 * _K * (_P / _K + _R / 2)
  step = weights + cached * counting.cache_bytes(config, 'bfloat16')
  prefill = _N * _P / 2048 * weights
  assert row.limit_secs == pytest.approx(steps * step + prefill)


def test_reading_shares_the_prompt():
  rows = _rows(_config())
  judge, relevance = _Sum(), _Sum()
  for _ in range(2 * _N):
    judge.read(0, _P)
    relevance.read(0, _P)
    for _ in range(_K):
      judge.read(_P, _P + _R + inputs_lib.QUESTION_TOKENS)
      judge.flops += judge.head
      relevance.read(_P, _P + _R, heads=True)
      relevance.read(0, _R, heads=True)
  assert rows['score judge'].flops == pytest.approx(judge.flops)
  assert rows['score relevance'].flops == pytest.approx(relevance.flops)
  assert rows['score verify'].secs == 0


def test_only_the_responses_that_are_scored_count():
  judge = rewards.RewardConfig(kind='judge', model=_SMOLLM2, max_responses=1)
  few = _rows(_config(rewards={'judge': judge}))['score judge']
  tokens = 2 * _N * (_P + _R + inputs_lib.QUESTION_TOKENS)
  assert few.tokens == tokens


def test_pairs_and_encoders_see_all_to_all():
  deberta = 'OpenAssistant/reward-model-deberta-v3-large-v2'
  reward = rewards.RewardConfig(
    kind='reward_model', model=deberta, max_tokens=10
  )
  rows = _rows(_config(rewards={'oasst': reward}))
  for row, name, num, length in (
    (rows['score oasst'], deberta, 2 * _N * _K, 10),  # Of 12.
    (rows['embed all-MiniLM-L6-v2'], _MINILM, _N, _P),
  ):
    config = catalog.CATALOG[name].config
    each = length * counting.flops_per_token(config)
    each += length**2 * counting.flops_per_pair(config)
    assert row.flops == num * each


@pytest.mark.parametrize(
  'selection, flops',
  [  # A Gram matrix and a linear system; or a basis and eigenvectors as well.
    ('fixed', 2 * 4000 * 384**2 + 2 / 3 * 384**3),
    ('leave_one_out', 4 * 4000 * 384**2 + 9 * 384**3),
  ],
)
def test_a_fit_reads_and_saves_a_probe_for_each_arm(selection, flops):
  fit = fit_stage.FitConfig(ridge=ridge.RidgeConfig(selection=selection))
  inputs = dataclasses.replace(_inputs(), num_prompts=8000)
  row = _rows(_config(fit=fit), flops=1e9, inputs=inputs)['fit judge']
  assert row.flops == 1e9 * row.limit_secs == pytest.approx(flops)
  saved = 2 * inputs_lib.PROBE_SECS
  assert row.secs == pytest.approx(2 * flops / 1e9 + saved)


def test_more_chips_hold_more_copies():
  one, eight = (_rows(_config(), num_chips=n) for n in (1, 8))
  for name, row in one.items():
    if row.network:
      assert eight[name].copies == 8
      assert row.secs == pytest.approx(8 * eight[name].secs)
    else:  # On the host.
      assert row.secs == eight[name].secs


def test_what_does_not_fit_is_said_with_what_would():
  large = {'70b': arms.Arm(model='meta-llama/Llama-3.1-70B-Instruct')}
  row = _rows(_config(arms=large))['sample 70b']
  assert not row.fits and row.secs == 0
  assert row.note == 'does not fit 1 × H100 as bfloat16; as int8 it fits 1'
  assert _rows(_config(arms=large), num_chips=2)['sample 70b'].chips == 2


def test_what_is_served_elsewhere_takes_no_chips():
  where = endpoint.Endpoint(url='http://h/v1')
  cfg = _config(
    arms={'far': arms.Arm(model='anything', endpoint=where)},
    rewards={
      'far': rewards.RewardConfig(
        kind='served_judge', model='anything', endpoint=where
      )
    },
  )
  rows = _rows(cfg)
  for name in ('sample far', 'score far'):
    assert rows[name].note == 'served elsewhere, not counted'
    assert rows[name].secs == 0 and rows[name].bytes > 3800


def test_slots_are_halved_until_their_cache_fits():
  """72 GiB less 15 of weights hold 467 000 tokens of 128 KiB."""
  cfg = _config(
    arms={'8b': arms.Arm(model='meta-llama/Llama-3.1-8B-Instruct')},
    sample=sample_stage.SampleConfig(
      k=64, max_new_tokens=3000, engine=engine.EngineConfig(slots=512)
    ),
  )
  row = _rows(cfg)['sample 8b']
  assert row.fits and row.note == 'with sample.engine.slots=96'
  assert _rows(cfg, num_chips=2)['sample 8b'].note == ''


def test_shares_of_the_limit():
  machine = machine_lib.find('v5e-16', ['sample=0.4'])
  assert machine.share('sample', 'int8') == 0.4
  assert machine.share('score', 'bfloat16') != 0.4
  assert machine.rate('int8') == machine.rate('bfloat16')
  for wrong in ('sample', 'sample=2', 'sample=x', 'smaple=0.4'):
    with pytest.raises(errors.UserError, match='--shares'):
      machine_lib.find('v5e-16', [wrong])


def test_numbers_of_prompts(tmp_path):
  cfg = _config()
  counted = inputs_lib.gather(cfg, 0, 0, 0)
  assert counted.num_prompts == len(counted.prompts) == 160
  assert counted.response_tokens == 9 and 'most' in counted.at_most
  prompts = dataclasses.replace(cfg.prompts, path='nowhere.parquet')
  cfg = dataclasses.replace(cfg, prompts=prompts)
  with pytest.raises(errors.UserError, match='set --num_prompts'):
    inputs_lib.gather(cfg, 0, 0, 0)
  assert inputs_lib.gather(cfg, 12, 0, 0).num_prompts == 12


def test_tokens_are_counted_where_they_can_be(minilm_dir):
  inputs = inputs_lib.gather(_config(), 0, 0, 0)
  here = embedder.EmbedConfig(encoder=str(minilm_dir), max_tokens=16)
  away = embedder.EmbedConfig(encoder=_MINILM)
  assert 8 < inputs.encoder_tokens(here) <= 16
  assert inputs.encoder_tokens(away) == inputs_lib.PROMPT_TOKENS
  given = inputs_lib.gather(_config(), 0, 11, 0)
  assert given.encoder_tokens(here) == 11


def test_the_papers_run(launch):
  """640 000 responses of 1024 tokens at most: 5 arms, 4000 prompts, K = 32."""
  flags = ('--config=configs/perfectblend.py', '--chip=H100-8', '--json')
  done = launch('plan', *flags)
  assert done.returncode == 0, done.stderr
  made = json.loads(done.stdout)
  assert made['num_prompts'] == 4000
  sampled = [row for row in made['rows'] if row['stage'] == 'sample']
  tokens = 640_000 * 1024 + 5 * 4000 * inputs_lib.PROMPT_TOKENS
  assert sum(row['tokens'] for row in sampled) == tokens
  total = made['total']
  assert total['hours'] * 8 == pytest.approx(total['device_hours'])
  assert total['hours'] * 3600 == pytest.approx(
    sum(row['secs'] for row in made['rows'])
  )
  assert not total['left_out']


def test_a_wrong_chip_is_one_line(launch):
  flags = ('--config=configs/perfectblend.py', '--chip=v7-16')
  done = launch('plan', *flags)
  assert done.returncode == 1
  line = done.stderr.strip().splitlines()[-1]
  assert "chip 'v7-16' is unknown; allowed: cpu, or KIND-COUNT" in line
  assert 'Traceback' not in done.stderr
