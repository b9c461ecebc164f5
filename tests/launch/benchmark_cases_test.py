"""launch.benchmark: embed, route and load, beside the peers that tests have."""

import dataclasses
import json

import pytest

from erp_jax.core import errors
from erp_jax.models import catalog
from launch.benchmarks import (
  contest,
  embed,
  embed_ours,
  embed_peers,
  load,
  load_ours,
  load_peers,
  route,
  route_ours,
  route_peers,
  table,
)

_KEYS = {
  *('case', 'unit', 'device', 'ours', 'peer', 'peer_name', 'ratio', 'limit'),
  *('share_of_limit', 'compile_s', 'programs', 'peak_gib', 'cold_s', 'rounds'),
  *('detail', 'peers', 'missing', 'machine', 'versions'),
}
_LIMITED = {'bound', 'matmul_gflops', 'copy_gbps'}
_EMBED = embed.EmbedWork(num_prompts=6, peer_rows=4, gte_prompts=3)
_ROUTE = route.RouteWork(
  fit_prompts=40, num_prompts=3, num_decisions=10, budget=1.0
)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_ours_and_the_peer_embed_the_same(dtype):
  ours = embed_ours.minilm((_EMBED, dtype))()
  theirs = embed_peers.minilm((_EMBED, dtype))()
  assert ours.count == theirs.count == 6
  tolerance = 1e-5 if dtype == 'float32' else 2e-2
  assert ours.detail['sum'] == pytest.approx(theirs.detail['sum'], tolerance)
  if dtype == 'bfloat16':
    assert 0.99 < ours.detail['least_cosine'] < ours.detail['mean_cosine'] < 1


def test_flops_are_those_of_the_tokens_read():
  """Of a layer's matrices, and of scores and sums of its attention."""
  one = dataclasses.replace(_EMBED, num_prompts=1)
  done = embed_ours.minilm((one, 'float32'))()
  tokens = done.detail['mean_tokens']
  layer = 4 * 384**2 + 2 * 384 * 1536
  vectors = 9 * 384 + 1536  # Biases, and two norms.
  each = 2 * (layer + vectors) * tokens + 4 * 384 * tokens**2
  assert done.flops == 6 * each


def test_ours_and_the_peer_embed_the_same_by_a_small_gte(monkeypatch):
  name = 'Alibaba-NLP/gte-large-en-v1.5'
  entry = catalog.CATALOG[name]
  small = dataclasses.replace(
    *(entry.config,),
    **{'width': 64, 'mlp': 96, 'num_layers': 2, 'heads': 4},
  )
  monkeypatch.setitem(
    catalog.CATALOG, name, dataclasses.replace(entry, config=small)
  )
  ours = embed_ours.gte((_EMBED, 'float32'))()
  theirs = embed_peers.gte((_EMBED, 'float32'))()
  assert ours.count == theirs.count == 3
  assert ours.detail['sum'] == pytest.approx(theirs.detail['sum'], 1e-5)


def test_each_prompt_is_routed():
  assert route_ours.prompt((_ROUTE, 'float32'))().count == 3
  assert route_peers.prompt((_ROUTE, 'float32'))().count == 3
  for batch, count in (1, 10), (4, 12):  # Whole batches.
    assert route_ours.decide((_ROUTE, batch))().count == count


@pytest.mark.parametrize('part', ['decoder', 'encoder'])
def test_a_loading_counts_the_file_read_and_written(tiny, part):
  work = load.LoadWork(decoder=str(tiny.decoder), encoder=str(tiny.encoder))
  ours = load_ours.prepare((work, part))()
  theirs = load_peers.prepare((work, part))()
  assert ours.count == theirs.count == 1
  # Two layers of width 32, in 2 and in 4 bytes.
  least = {'decoder': 2 * 2 * 2 * 32 * 48, 'encoder': 4 * 2 * 2 * 32 * 48}
  assert least[part] < ours.bytes / 2 < 40 * least[part]
  assert ours.bytes == pytest.approx(theirs.bytes, rel=0.05)


def test_a_ratio_is_the_median_of_the_rounds():
  timing = lambda rates, **work: contest.Timing(
    *(rates, contest.Work(8, **work), [4e9], [1e9]), 1.0, 0.5, 0.2, 3
  )
  case = contest.Contest(
    case='made up',
    unit='prompts',
    dtype='float32',
    ours=contest.Contender('ours', '', None),
    peers=(
      contest.Contender('absent', '', None, ('no_such_package',)),
      contest.Contender('slow', '', None),
    ),
  )
  made = table.summary(
    case,
    {
      'ours': timing([2.0, 6.0, 4.0], flops=2e9, bytes=1e8),
      'slow': timing([1.0, 2.0, 8.0]),
    },
    timing([1.0]),
    'cpu',
  )
  assert (made['ours'], made['peer'], made['peer_name']) == (4, 2, 'slow')
  of_slow = made['peers']['slow']
  assert made['ratio'] == of_slow['ratio'] == 2
  assert (of_slow['ratio_least'], of_slow['ratio_most']) == (0.5, 3)
  assert made['missing'] == {'absent': ['no_such_package']}
  # 2e9 operations at 4e9 a second, longer than 1e8 bytes at 1e9.
  assert (made['bound'], made['limit']) == ('matmul', 16)
  assert made['share_of_limit'] == 0.25


@pytest.mark.slow
@pytest.mark.parametrize(
  ('case', 'flags', 'names', 'unit'),
  [
    (
      'embed',
      {'parts': "('float32',)", 'num_prompts': 6},
      {'embed float32': 'sentence-transformers float32'},
      'prompts/s',
    ),
    (
      'route',
      {'parts': "('decide 1',)", 'num_decisions': 10},
      {'route decide 1': ''},
      'prompts/s',
    ),
    (
      'load',
      {'parts': "('decoder new',)"},
      {'load decoder new': 'transformers'},
      'loadings/s',
    ),
  ],
)
def test_a_case_prints_a_line_for_each_contest(
  case, flags, names, unit, launch, tiny, tmp_path
):
  if case == 'load':
    flags = flags | {'decoder': tiny.decoder, 'encoder': tiny.encoder}
  folder = tmp_path / 'temporary'
  folder.mkdir()
  done = launch(
    'benchmark',
    f'--config=configs/benchmark.py:{case}',
    '--config.rounds=1',
    *(f'--config.{case}.{k}={v}' for k, v in flags.items()),
    TMPDIR=str(folder),
  )
  assert done.returncode == 0, done.stderr
  made = [json.loads(x) for x in done.stdout.splitlines() if x[:1] == '{']
  assert [m['case'] for m in made] == list(names)
  for line, peer in zip(made, names.values(), strict=True):
    assert line['unit'] == unit
    assert line['ours'] > 0 and line['cold_s'] > 0 and line['peak_gib'] > 0
    if peer:
      assert line.keys() == _KEYS | _LIMITED
      assert line['peer_name'] == peer
      assert line['ratio'] == pytest.approx(line['ours'] / line['peer'])
      assert 0 < line['share_of_limit'] < 1
    else:
      assert line.keys() == _KEYS - {'peer_name'}
      assert line['ratio'] is line['limit'] is None
  assert not list(folder.iterdir())  # What was written is gone again.


@pytest.mark.parametrize(
  ('make', 'changes', 'message'),
  [
    (embed.EmbedWork, {'num_prompts': 0}, 'embed.num_prompts must be >= 1'),
    (embed.EmbedWork, {'peer_rows': -1}, 'embed.peer_rows must be >= 1'),
    (embed.EmbedWork, {'parts': ('int8',)}, "embed.parts is 'int8'; allowed"),
    (route.RouteWork, {'num_arms': 0}, 'route.num_arms must be >= 1, got 0'),
    (route.RouteWork, {'num_decisions': 0}, 'route.num_decisions must be >='),
    (route.RouteWork, {'parts': ('decide 2',)}, "route.parts is 'decide 2'"),
    (load.LoadWork, {'parts': ('router',)}, "load.parts is 'router'; allowed"),
  ],
)
def test_work_that_cannot_be_done_is_refused(make, changes, message):
  with pytest.raises(errors.UserError, match=message):
    make(**changes)
