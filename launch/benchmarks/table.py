"""Timings of a contest as one JSON object, and as rows of a table."""

import statistics
from typing import Any

from rich import table as rich_table

from launch.benchmarks import contest as contest_lib


def summary(
  contest: contest_lib.Contest,
  timings: dict[str, contest_lib.Timing],
  ceilings: contest_lib.Timing,
  device: str,
) -> dict[str, Any]:
  """What is printed of one case; null is what could not be measured.

  Rates are medians over the rounds, ratios medians of each round's. `limit` is
  the rate at which the counted work would take as long as its flops at the
  measured matmul rate, or its bytes at the measured copy rate, whichever is
  more; `bound` says which.
  """
  ours = timings[contest.ours.name]
  made = {
    'case': contest.case,
    'unit': f'{contest.unit}/s',
    'device': contest.device or device,
    'ours': statistics.median(ours.rates),
    'peer': None,
    'ratio': None,
    **_limit(ours, None if contest.device else ceilings),
    'compile_s': ours.compile_secs,
    'programs': ours.programs,
    'peak_gib': ours.peak_gib,
    'cold_s': ours.cold_secs,
    'rounds': len(ours.rates),
    'detail': ours.work.detail,
    'peers': {},
    'missing': {p.name: p.missing for p in contest.peers if p.missing},
  }
  for peer in contest.peers:
    if peer.name in timings:
      made['peers'][peer.name] = _peer(ours, timings[peer.name])
  if made['peers']:
    first = next(iter(made['peers']))
    made |= {'peer_name': first} | {
      key: made['peers'][first][name]
      for key, name in (('peer', 'rate'), ('ratio', 'ratio'))
    }
  return made


def _limit(ours, ceilings) -> dict[str, Any]:
  if ceilings is None:
    return {'limit': None, 'share_of_limit': None}
  matmul, copy = max(ceilings.flops), max(ceilings.bytes)
  secs = {
    'matmul': ours.work.flops / matmul,
    'copy': ours.work.bytes / copy,
  }
  bound = max(secs, key=secs.get)
  if not secs[bound]:
    return {'limit': None, 'share_of_limit': None}
  limit = ours.work.count / secs[bound]
  return {
    'limit': limit,
    'share_of_limit': statistics.median(ours.rates) / limit,
    'bound': bound,
    'matmul_gflops': matmul / 1e9,
    'copy_gbps': copy / 1e9,
  }


def _peer(ours, theirs) -> dict[str, Any]:
  ratio, least, most = contest_lib.median_ratio(ours, theirs)
  return {
    'rate': statistics.median(theirs.rates),
    'ratio': ratio,
    'ratio_least': least,
    'ratio_most': most,
    'cold_s': theirs.cold_secs,
    'peak_gib': theirs.peak_gib,
    'detail': theirs.work.detail,
  }


def table(summaries: list[dict[str, Any]], caption: str) -> rich_table.Table:
  """A row for each case and peer."""
  made = rich_table.Table(caption=caption, caption_justify='left')
  columns = ('case', 'ours', 'peer', 'ratio', 'of the limit', 'compile', 'GiB')
  for i, column in enumerate((*columns, 'cold start')):
    made.add_column(column, justify='right' if 0 < i != 2 else 'left')
  for s in summaries:
    share, bound = s['share_of_limit'], s.get('bound')
    limit = '—' if share is None else f'{share:.0%} {bound}'
    end = (limit, f'{s["programs"]} in {s["compile_s"]:.1f} s')
    rows = [
      (
        f'{name} {_number(peer["rate"])}',
        f'{peer["ratio"]:.2f} ({peer["ratio_least"]:.2f}–'
        f'{peer["ratio_most"]:.2f})',
        f'{s["peak_gib"]:.2f}, {peer["peak_gib"]:.2f}',
        f'{s["cold_s"]:.1f}, {peer["cold_s"]:.1f} s',
      )
      for name, peer in s['peers'].items()
    ]
    rows += [
      (f'{name}: {", ".join(packages)} not installed', '—', '—', '—')
      for name, packages in s['missing'].items()
    ]
    own = (f'{s["peak_gib"]:.2f}', f'{s["cold_s"]:.1f} s')
    for i, (peer, ratio, gib, cold) in enumerate(rows or [('—', '—', *own)]):
      first = (s['case'], f'{_number(s["ours"])} {s["unit"]}')
      made.add_row(
        *(first if i == 0 else ('', '')),
        *(peer, ratio),
        *(end if i == 0 else ('', '')),
        *(gib, cold),
      )
  return made


def _number(value: float) -> str:
  return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'
