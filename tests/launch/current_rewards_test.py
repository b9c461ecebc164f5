"""What a run's decisions rest on: rewards of the responses that are there."""

import numpy as np
import pyarrow as pa
import pytest
from etils import epath

from erp_jax.core import endpoint, errors, resample, store, upstream
from erp_jax.core import workdir as workdir_lib
from erp_jax.data import arms as arms_lib
from erp_jax.data import prompts as prompts_lib
from erp_jax.embed import embedder
from erp_jax.embed import stage as embed_stage
from erp_jax.probe import stage as fit_stage
from erp_jax.report import runs
from erp_jax.route import costs, export, stage
from erp_jax.score import rewards as rewards_lib
from launch import pipeline_config, sources

_PROMPTS = [
  prompts_lib.Prompt(f'p{n}', f'Question {n}?', 'ab'[n % 2]) for n in range(24)
]
_ENDPOINT = endpoint.Endpoint(url='http://localhost:8000/v1')
_ARMS = {
  name: arms_lib.Arm(model=name, endpoint=_ENDPOINT, nominal_b=billions)
  for name, billions in (('small', 1.0), ('large', 9.0))
}
_REWARD = rewards_lib.RewardConfig()
_EMBED = embedder.EmbedConfig()
_FIT = fit_stage.FitConfig()
_ROUTE = stage.RouteConfig(bootstrap=resample.BootstrapConfig(num_draws=200))


class _Run:
  """A run whose responses, rewards and embeddings were made by hand."""

  def __init__(self, path):
    self.workdir = workdir_lib.Workdir(epath.Path(path), {'versions': {}})
    prompt_id = [prompt.id for prompt in _PROMPTS]
    values = pa.array(
      np.random.default_rng(0).normal(size=24 * 3), pa.float32()
    )
    emb = pa.FixedSizeListArray.from_arrays(values, 3)
    self._write(
      embed_stage.folder(_EMBED),
      {
        'embed': {},
        'revision': '',
        'prompts': prompts_lib.text_digest(_PROMPTS),
      },
      {'prompt_id': prompt_id, 'embedding': emb},
    )
    for arm in _ARMS:
      self.answer(arm, 'Yes.')
      self.score(arm, upstream.digest(self._responses(arm)))

  def answer(self, arm, text):
    """Responses of a server, which names no content in their identity."""
    num = len(_PROMPTS)
    columns = {
      'prompt_id': [prompt.id for prompt in _PROMPTS],
      'k': [0] * num,
      'text': [text] * num,
      'finish_reason': ['stop'] * num,
    }
    served = {'arm': {'revision': _ENDPOINT.identify(arm)}}
    self._write(f'responses/{arm}', served, columns)

  def score(self, arm, responses):
    """Rewards of these responses; None: they were made elsewhere."""
    rng = np.random.default_rng(len(arm))
    made_of = {'responses': responses} if responses else {}
    self._write(
      f'rewards/r/{arm}',
      {
        'reward': _REWARD.fields(),
        'prompts': prompts_lib.digest(_PROMPTS),
        **made_of,
      },
      {
        'prompt_id': [prompt.id for prompt in _PROMPTS],
        'k': [0] * len(_PROMPTS),
        'reward': rng.normal(size=len(_PROMPTS)).astype(np.float32),
      },
    )

  def _responses(self, arm):
    return self.workdir.path / 'responses' / arm

  def _write(self, name, identity, columns):
    artifact = self.workdir.artifact(name, identity, num_shards=1)
    if artifact.path.exists():
      artifact.path.rmtree()
    with self.workdir.writer(artifact) as writer:
      writer.write_shard(0, pa.table(columns))
      writer.finish()

  def fit(self):
    encoder = embed_stage.folder(_EMBED)
    fit_stage.run(self.workdir, {'r': _REWARD}, _ARMS, _PROMPTS, encoder, _FIT)

  def route(self):
    encoder = embed_stage.folder(_EMBED)
    stage.run(self.workdir, ['r'], _ARMS, _PROMPTS, encoder, _FIT, _ROUTE)

  def export(self):
    encoder = embed_stage.folder(_EMBED)
    args = ['r'], _ARMS, _PROMPTS, encoder, _FIT, costs.CostConfig()
    export.run(self.workdir, *args, export.ExportConfig())

  def experiment(self):
    file = self.workdir.path / 'prompts.jsonl'
    file.write_text(
      ''.join(
        f'{{"id": "{p.id}", "prompt": "{p.prompt}", "category": '
        f'"{p.category}"}}\n'
        for p in _PROMPTS
      )
    )
    cfg = pipeline_config.Pipeline(
      prompts=prompts_lib.PromptConfig(path=str(file)),
      arms=_ARMS,
      rewards={'r': _REWARD},
      embed=_EMBED,
    )
    return sources.from_run(cfg, self.workdir)

  def report(self):
    return runs.load(self.workdir.path, ['r'], list(_ARMS))


@pytest.fixture
def run(tmp_path):
  made = _Run(tmp_path)
  made.fit()
  return made


_READERS = ['fit', 'route', 'export', 'experiment', 'report']


@pytest.mark.parametrize('reader', _READERS)
def test_rewards_of_responses_that_were_drawn_again_are_refused(reader, run):
  read = getattr(run, reader)
  read()
  run.answer('large', 'Yes.')  # To the byte as before.
  read()
  run.answer('large', 'No.')
  with pytest.raises(errors.UserError) as e:
    read()
  folder = run.workdir.path / 'rewards/r/large'
  line = f'{e.value}'
  assert line.startswith(f'{folder} was made with other responses than '), line
  assert f'delete {folder}, then run launch.score' in line
  run.score('large', upstream.digest(run.workdir.path / 'responses/large'))
  if reader not in ('fit', 'experiment', 'report'):
    with pytest.raises(errors.UserError, match='made with rewards = '):
      read()
  (run.workdir.path / 'probes/r/large').rmtree()
  run.fit()
  read()


@pytest.mark.parametrize('reader', _READERS)
def test_the_check_reads_no_text(reader, run, monkeypatch):
  """Of responses; experiments and the report read them for other reasons."""
  opened = []
  read_table = store.read_table

  def noted(path):
    opened.append(path.parent.name)
    return read_table(path)

  monkeypatch.setattr(store, 'read_table', noted)
  getattr(run, reader)()
  assert ('responses' in opened) == (reader in ('experiment', 'report'))


def test_rewards_that_were_made_elsewhere_need_no_responses(run):
  for arm in _ARMS:
    run.score(arm, None)
    for folder in (f'responses/{arm}', f'probes/r/{arm}'):
      (run.workdir.path / folder).rmtree()
  run.fit()
  probe = fit_stage.load(run.workdir.path, 'r', tuple(_ARMS))
  assert np.isfinite(probe.theta_EM).all()
