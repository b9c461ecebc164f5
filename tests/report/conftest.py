"""Small inputs of a report: made-up numbers in the shape of the real ones."""

import html.parser

import numpy as np
import pyarrow as pa
import pytest
from etils import epath

from erp_jax.core import store
from erp_jax.core import workdir as workdir_lib
from erp_jax.route import metrics as route_metrics

BUDGETS = ('0.25', '0.5', '0.75', '1.0')
CATEGORIES = ('chat', 'code', 'math')
PROVENANCE = {
  'versions': {'jax': '0.10.2', 'python': '3.11.9'},
  'revision': 'abc123+',
  'machine': {'platform': 'Linux', 'cpus': 2, 'devices': ['cpu']},
}
NUM_PROMPTS = 24
K = 3


def _leaf(value, reason=''):
  if value is None:
    return {'mean': None, 'sd': None, 'n_splits': 0} | (
      {'reason': reason} if reason else {'feasible': False}
    )
  return {'mean': float(value), 'sd': 0.01, 'n_splits': 2}


def _bounds(value, half=0.05):
  return {'mean': float(value), 'lo': value - half, 'hi': value + half}


def _shares(models):
  """Win shares by model: 1, 2, 3 … sixths in truth, the reverse predicted."""
  parts = [(i + 1) / sum(range(len(models) + 1)) for i in range(len(models))]
  return {
    m: {'true': _leaf(true), 'predicted': _leaf(predicted)}
    for m, true, predicted in zip(models, parts, parts[::-1], strict=True)
  }


def _metrics(models, rng):
  policies = ['erp', 'static_mixture', 'random', 'permuted', 'per_category']
  policies += [f'same:{m}' for m in models]
  pairs = [f'{a}|{b}' for i, a in enumerate(models) for b in models[i + 1 :]]
  shares = _shares(models)
  metrics = {
    'r2': {
      m: {
        'aggregate': _leaf(rng.normal(0.2, 0.1)),
        'by_category': {c: _leaf(rng.normal(0, 0.1)) for c in CATEGORIES},
      }
      for m in models
    },
    'auroc': {
      pair: {'erp': _leaf(rng.uniform(0.4, 0.7)), 'tied_share': _leaf(0.125)}
      for pair in pairs
    },
    'win_share': {
      m: {
        'aggregate': shares[m],
        'by_category': {c: shares[m] for c in CATEGORIES},
      }
      for m in models
    },
    'regret_at_budget': {
      p: {b: _leaf(rng.uniform(0.1, 0.3)) for b in BUDGETS} for p in policies
    },
    'cost_at_budget': {
      p: {b: _leaf(rng.uniform(1, 9)) for b in BUDGETS} for p in policies
    },
    'frontier': {
      p: [_leaf(r) for r in np.linspace(0.3, 0.1, 101)] for p in policies
    },
  }
  route_metrics.validate_metrics(metrics)
  return metrics


def _intervals(metrics):
  r2 = {
    m: {
      'aggregate': _bounds(v['aggregate']['mean']),
      'by_category': {
        c: _bounds(leaf['mean']) for c, leaf in v['by_category'].items()
      },
    }
    for m, v in metrics['r2'].items()
  }
  regret = {
    policy: {b: _bounds(leaf['mean'] + 0.01) for b, leaf in budgets.items()}
    for policy, budgets in metrics['regret_at_budget'].items()
  }
  paired = {b: _bounds(0.0) for b in BUDGETS}
  return {
    'r2': r2,
    'regret_at_budget': regret,
    'paired': {'erp-static_mixture': paired},
  }


def _predictions(models, rng):
  rows = [
    {
      'prompt_id': f'p{n:03d}',
      'category': CATEGORIES[n % 3],
      'split': 'test' if n // 3 % 2 else 'train',
      'arm': m,
      'reward': float(rng.normal()),
      'num_valid': K,
      'prediction': float(rng.normal(0, 0.3)),
    }
    for n in range(NUM_PROMPTS)
    for m in models
  ]
  return pa.Table.from_pylist(rows)


class Inputs:
  """A workdir to be reported on; tests change what they are about."""

  def __init__(self, path, models=('plain', 'terse', 'teacher')):
    self.path = path
    self.models = models
    self.rewards = ('verify', 'judge')
    self.text = 'An answer.'
    self.seeds = [0, 1]
    self.more_counts = {}
    self.generation = {}  # Arm to its vendor's settings.
    self.self_scored = {'verify': False, 'judge': True}
    rng = np.random.default_rng(0)
    self.metrics = {
      name: _metrics(models, rng) for name in (*self.rewards, 'replay')
    }
    self.intervals = {n: _intervals(m) for n, m in self.metrics.items()}
    self.predictions = _predictions(models, rng)

  def set_difference(self, name, budget, value, half, mean):
    """ERP minus static mixture: value ± half, and the mean over splits."""
    self.intervals[name]['paired']['erp-static_mixture'][budget] = _bounds(
      value, half
    )
    regret = self.metrics[name]['regret_at_budget']
    static = regret['static_mixture'][budget]['mean']
    regret['erp'][budget] = _leaf(static + mean)

  def make_infeasible(self, name, budget):
    for what in ('regret_at_budget', 'cost_at_budget'):
      for policy in self.metrics[name][what].values():
        policy[budget] = _leaf(None)
    unknown = {'mean': None, 'lo': None, 'hi': None}
    for policy in self.intervals[name]['regret_at_budget'].values():
      policy[budget] = unknown
    self.intervals[name]['paired']['erp-static_mixture'][budget] = unknown

  def write(self):
    for name in self.metrics:
      folder = self.path / ('replay' if name == 'replay' else f'routes/{name}')
      about = {
        'models': list(self.models),
        'costs': {m: float(3**i) for i, m in enumerate(self.models)},
        'cost_unit': 'billions of parameters × tokens',
        'seeds': self.seeds,
        'counts': {'prompts': NUM_PROMPTS},
      }
      files = {
        'metrics.json': store.json_bytes(self.metrics[name]),
        'intervals.json': store.json_bytes(self.intervals[name]),
        'predictions.parquet': store.parquet_bytes(self.predictions),
        'about.json': store.json_bytes(about),
      }
      write_files(folder, files)
    for arm in self.models:
      self._write_arm(arm)
    return self.path

  def _write_arm(self, arm):
    workdir = workdir_lib.Workdir(self.path, PROVENANCE)
    ids = [(f'p{n:03d}', k) for n in range(NUM_PROMPTS) for k in range(K)]
    responses = [
      {
        'prompt_id': prompt_id,
        'k': k,
        'arm': arm,
        'text': self.text,
        'num_tokens': 10 + k,
        'prompt_tokens': 20,
        'finish_reason': 'length' if k == 0 else 'stop',
      }
      for prompt_id, k in ids
    ]
    identity = {
      'arm': {'model': 'package:tiny', 'system_prompt': f'Be {arm}.'},
      'sample': {
        'k': K,
        'temperature': 1.0,
        'max_new_tokens': 64,
        'seed': 7,
      },
    }
    _write(
      workdir,
      f'responses/{arm}',
      identity,
      pa.Table.from_pylist(responses),
      {'tokens': 11 * len(ids), 'slot_steps': 20 * len(ids)},
      {'num_parameters': 134515008}
      | (
        {'generation': self.generation[arm]} if arm in self.generation else {}
      ),
    )
    for reward in self.rewards:
      rows = [
        {
          'prompt_id': prompt_id,
          'k': k,
          'reward': float('nan') if k == 1 else 0.25 * k,
        }
        for prompt_id, k in ids
        if reward == 'verify' or k < 2
      ]
      _write(
        workdir,
        f'rewards/{reward}/{arm}',
        {'reward': {'kind': reward, 'model': ''}},
        pa.Table.from_pylist(rows),
        {'positions': 1234, 'non_finite': NUM_PROMPTS}
        | self.more_counts.get((reward, arm), {}),
        {'self_scored': self.self_scored[reward]},
      )


def write_files(folder, files):
  """An artefact of named files, as an evaluation is."""
  artifact = store.Artifact(epath.Path(folder), {'format_version': 1})
  with artifact.writer(PROVENANCE) as writer:
    for name, data in files.items():
      writer.write_file(name, data)
    writer.finish()


@pytest.fixture(scope='session')
def write_evaluation():
  """Writes files, {name: bytes}, as the artefact in a folder."""
  return write_files


def _write(workdir, name, identity, table, counts, info):
  artifact = workdir.artifact(name, identity, num_shards=1)
  with workdir.writer(artifact) as writer:
    writer.write_shard(0, table, counts)
    writer.finish(info)


@pytest.fixture(scope='session')
def make_inputs(tmp_path_factory):
  """Makes an `Inputs`, of some models, in a fresh folder."""
  return lambda *models: Inputs(tmp_path_factory.mktemp('run'), *models)


class _Tables(html.parser.HTMLParser):
  """Collects tables (by class, as rows of texts), text and addresses."""

  def __init__(self):
    super().__init__()
    self.tables = []
    self.text = ''
    self.addresses = []
    self.tags = []
    self._cell = False

  def handle_starttag(self, tag, attrs):
    attrs = dict(attrs)
    self.tags.append(tag)
    self.addresses += [attrs[a] for a in ('src', 'href') if a in attrs]
    if tag == 'table':
      self.tables.append((attrs['class'], []))
    elif tag == 'tr':
      self.tables[-1][1].append([])
    elif tag in ('td', 'th'):
      self.tables[-1][1][-1].append('')
      self._cell = True
    elif tag == 'span' and self._cell:
      self.tables[-1][1][-1][-1] += ' '

  def handle_endtag(self, tag):
    if tag in ('td', 'th'):
      self._cell = False

  def handle_data(self, data):
    self.text += data
    if self._cell:
      self.tables[-1][1][-1][-1] += data

  def table(self, kind, index=0):
    """{first cell: the other cells} of the index-th table of a kind."""
    rows = [rows for name, rows in self.tables if name == kind][index]
    return {row[0]: row[1:] for row in rows}


@pytest.fixture(scope='session')
def read_page():
  """Parses a page as a browser would see it."""

  def read(path):
    parser = _Tables()
    parser.feed(path.read_text())
    parser.text = ' '.join(parser.text.split())
    return parser

  return read
