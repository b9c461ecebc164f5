"""Proposition 1 for readers: how often the arm of higher ER wins."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import figure as figure_lib

from erp_jax.core import resample
from erp_jax.probe import pairwise
from erp_jax.report import cells, document, figures, pairwise_figure, words
from erp_jax.route import proposition as proposition_lib
from erp_jax.route import winrates

Cell = cells.Cell
_POOLED = 'all pairs'
_GAPS = {
  'samples': 'means of the same samples',
  'other_half': 'means of the other half of the samples',
  'known': 'known ER',
  'predicted': 'predicted rewards',
}
_PREFERRED = ('known', 'samples', 'predicted')  # For 'best_known'.
_PROXIES = {
  proposition_lib.HOEFFDING: 'bound, σ² by Hoeffding’s lemma',
  proposition_lib.KNOWN: 'bound, σ² of the simulated noise',
  proposition_lib.VARIANCE: 'if σ² were the sample variance (no bound)',
}
_ANY = {False: '', True: ', however dependent'}
# Colour, and dashes for independent and for any responses.
_LINES = {
  proposition_lib.HOEFFDING: (figures.RED, '-', '--'),
  proposition_lib.KNOWN: (figures.GREEN, '-', '--'),
  proposition_lib.VARIANCE: (figures.PURPLE, (0, (1, 1.2)), '-.'),
}


class Judged(NamedTuple):
  """One pair, or all of them, with one kind of gap.

  Attributes:
    rows: prompts, times pairs, times halves.
    summary: `proposition.summarise`.
    groups: `proposition.groups`.
    binned: {'strict', 'half_ties'}: error of Φ by group; NaN if unknown.
    bounds: names of the bounds there are.
    reason: why Φ is not available.
  """

  rows: int
  summary: dict[str, dict[str, Any]]
  groups: list[dict[str, Any]]
  binned: dict[str, float]
  bounds: tuple[str, ...]
  reason: str


class Found(NamedTuple):
  """What one reward model's test prompts show.

  Attributes:
    pair: names of the two arms of the figure.
    judged: by kind of gap and (pair or _POOLED).
    missing: why the other kinds are not available.
    shown: kind of gap of the figure.
  """

  pair: str
  judged: dict[str, dict[str, Judged]]
  missing: dict[str, str]
  shown: str


def measure(
  evidence: proposition_lib.Evidence,
  arms: Sequence[str],
  pair: tuple[int, int],
  cfg: winrates.WinRatesConfig,
  bootstrap: resample.BootstrapConfig,
) -> Found:
  """Every kind of gap that there is, for this pair and for all pairs."""
  pairs = pairwise.arm_pairs(len(arms))
  name = ' or '.join(arms[m] for m in pair)
  judged, missing = {}, {}
  for gap in winrates.GAPS:
    if reason := evidence.missing(gap):
      missing[gap] = reason
      continue
    rates = proposition_lib.rates(evidence, gap)
    every = np.arange(rates.gap_NI.shape[1])
    columns = {name: every[every % len(pairs) == pairs.index(pair)]}
    if len(pairs) > 1:
      columns[_POOLED] = every
    judged[gap] = {
      which: _judge(rates.take(taken), cfg, bootstrap)
      for which, taken in columns.items()
    }
  shown = cfg.gap
  if shown == 'best_known':
    shown = next(gap for gap in _PREFERRED if gap in judged)
  return Found(name, judged, missing, shown)


def _judge(
  rates: proposition_lib.Rates,
  cfg: winrates.WinRatesConfig,
  bootstrap: resample.BootstrapConfig,
) -> Judged:
  groups = proposition_lib.groups(rates, cfg.groups, bootstrap)
  return Judged(
    rows=int(np.isfinite(rates.gap_NI).sum()),
    summary=proposition_lib.summarise(rates, bootstrap),
    groups=groups,
    binned={
      rate: proposition_lib.binned_error(groups, rate)
      for rate in ('strict', 'half_ties')
    },
    bounds=tuple(rates.bounds),
    reason=rates.reason,
  )


def section(
  prefix: str, reward: str, found: Found, cfg: winrates.WinRatesConfig
) -> document.Section:
  """Text, tables and the figure; `prefix` begins the names of files."""
  text = [
    'If arm 1 has the higher expected reward, by d, and rewards are '
    'σ²-subgaussian, its answer is rewarded strictly better with probability '
    'at least 1 − exp(−d²/4σ²) for independent answers, and 1 − exp(−d²/8σ²) '
    'however they depend on each other. Φ(d/√(s₀² + s₁²)) is no bound but an '
    'estimate, exact for Gaussian rewards.'
  ]
  if reward in cfg.bounds:
    low, high = cfg.bounds[reward]
    text.append(
      f'Rewards lie between {low:g} and {high:g}, so (range/2)² is a σ² that '
      'holds (Hoeffding).'
    )
  else:
    text.append(
      'These rewards have no bounds, so no σ² is known to hold; a sample '
      'variance is none, and its curve no guarantee.'
    )
  if 'samples' in found.judged:
    text.append(
      'Where d is of the same samples as the win rate, both are exact for the '
      'samples themselves, as if they were all answers that there are; for '
      'other answers d is too large, by choice of the better arm. The other '
      'half of the samples, predictions and known ER are free of that, but the '
      'first two are off the true d themselves.'
    )
  for gap, reason in found.missing.items():
    text.append(f'Not available with d of {_GAPS[gap]}: {reason}.')
  drawn = []
  judged = found.judged.get(found.shown, {})
  if any(one.groups for one in judged.values()):
    drawn.append(
      document.Figure(
        f'{prefix}-proposition',
        draw(judged, found.shown),
        f'How often the arm of higher expected reward wins, by {reward}. d is '
        f'of {_GAPS[found.shown]}; each point is a group of like d, with its '
        '95 % bootstrap interval over prompts.',
      )
    )
  return document.Section(
    title=f'{reward}: Proposition 1',
    text=text,
    tables=_tables(prefix, found),
    figures=drawn,
  )


def _tables(prefix: str, found: Found) -> list[cells.Table]:
  bounds, plug_in, groups = [], [], []
  for gap, by_which in found.judged.items():
    for which, one in by_which.items():
      first = [Cell(which), Cell(_GAPS[gap])]
      leaf = one.summary.get
      for bound in one.bounds:
        bounds.append(
          [
            *first,
            Cell(_bound_name(bound)),
            cells.number(one.rows, write=lambda value: words.count(int(value))),
            cells.leaf(leaf(f'{bound} below'), words.share),
            cells.leaf(leaf(f'{bound} beyond'), words.share),
            cells.leaf(leaf(f'{bound} margin'), words.difference),
          ]
        )
      row = list(first)
      for rate in ('strict', 'half_ties'):
        for kind, write in (
          ('error', words.number),
          ('bias', words.difference),
        ):
          value = leaf(f'{rate}_{kind}')
          row.append(
            Cell(words.DASH, one.reason)
            if value['mean'] is None
            else cells.leaf(value, write)
          )
        row.append(cells.number(one.binned[rate]))
      plug_in.append([*row, cells.leaf(leaf('tied'), words.share)])
      if gap == found.shown:
        groups += [
          [Cell(which), Cell(str(i))] + _group_cells(group)
          for i, group in enumerate(one.groups, start=1)
        ]
  per_group = ['d', 'Strict', 'Half ties', 'Φ', 'Prompts']
  names = {name for row in found.judged.values() for one in row.values()
           for name in one.bounds}  # fmt: skip
  names = [name for name in _bound_order() if name in names]
  return [
    cells.Table(
      f'{prefix}-bounds',
      'Strict win rates against the bounds on the first split’s test prompts; '
      'with few samples a prompt’s rate is often below its chance. '
      'Beyond chance: so far below that if the bound were the true chance of a '
      'win, at most 5 % of prompts would be (Chernoff’s inequality for '
      'U-statistics); with an exact d and a true σ² any more would refute the '
      'bound.',
      [
        'Arms',
        'd from',
        'Bound',
        'Prompts × pairs',
        'Below it',
        'Beyond chance',
        'Mean rate − bound',
      ],
      bounds,
      labels=3,
    ),
    cells.Table(
      f'{prefix}-plug-in',
      'Φ(d/√(s₀² + s₁²)) against win rates: the mean |Φ − rate| over prompts '
      '(the noise of a prompt’s rate is part of it), the mean Φ − rate, and '
      'the mean |Φ − rate| of groups of like d.',
      [
        'Arms',
        'd from',
        '|Φ − strict|',
        'Φ − strict',
        'By group',
        '|Φ − half ties|',
        'Φ − half ties',
        'By group ',
        'Tied',
      ],
      plug_in,
      labels=2,
    ),
    cells.Table(
      f'{prefix}-groups',
      f'The figure’s groups: d of {_GAPS[found.shown]}.',
      ['Arms', 'Group', *per_group, *map(_bound_name, names)],
      [
        [
          *row,
          *[Cell(words.DASH)] * (2 + len(per_group) + len(names) - len(row)),
        ]
        for row in groups
      ],  # fmt: skip
      labels=2,
    ),
  ]


def _bound_order() -> list[str]:
  return [name + end for name in _PROXIES for end in ('', '_any')]


def _bound_name(bound: str) -> str:
  name = bound.removesuffix('_any')
  return _PROXIES[name] + _ANY[name != bound]


def _group_cells(group: dict[str, Any]) -> list[Cell]:
  keys = ['gap', 'strict', 'half_ties', 'plug_in']
  row = [cells.leaf(group[key]) for key in keys]
  row.append(cells.number(group['rows'], write=lambda v: words.count(int(v))))
  return row + [
    cells.leaf(group[name]) for name in _bound_order() if name in group
  ]


def draw(judged: dict[str, Judged], gap: str) -> figure_lib.Figure:
  """A panel for the pair, and one for all pairs."""
  figure = figures.new(figures.WIDTH, 5.4)
  panels = figure.subplots(1, len(judged), squeeze=False, sharey=True)[0]
  handles: dict[str, Any] = {}
  for axes, (which, one) in zip(panels, judged.items(), strict=True):
    column = lambda key, one=one: np.array(
      [
        [resample.number(leaf[k]) for k in ('mean', 'lo', 'hi')]
        for leaf in (group[key] for group in one.groups)
      ]
    ).reshape(-1, 3)
    x = column('gap')[:, 0]
    for bound in _drawn_bounds(one.bounds):
      name = bound.removesuffix('_any')
      colour, independent, dependent = _LINES[name]
      (handles[_bound_name(bound)],) = axes.plot(
        x,
        column(bound)[:, 0],
        color=colour,
        linestyle=independent if bound == name else dependent,
        linewidth=1.8,
      )
    if not one.reason:
      (handles['Φ(d/√(s₀² + s₁²)), plug-in'],) = axes.plot(
        x, column('plug_in')[:, 0], color=figures.BLUE, linewidth=2.2
      )
    tied = one.summary['tied']['mean']
    for key, label, face in (
      ('half_ties', 'win rate, ties count half', 'white'),
      ('strict', 'win rate, strict', figures.BLACK),
    ):
      if key == 'half_ties' and not tied:
        continue
      value = column(key)
      handles[label] = axes.errorbar(
        x,
        value[:, 0],
        yerr=np.maximum(
          [value[:, 0] - value[:, 1], value[:, 2] - value[:, 0]], 0
        ),
        fmt='o',
        color=figures.BLACK,
        markerfacecolor=face,
        markersize=5,
        elinewidth=1.2,
        capsize=2.5,
        zorder=4,
      )
    figures.plain_axes(axes, f'd, from {_GAPS[gap]} (reward units)', '')
    axes.set_title(pairwise_figure.wrap(which), fontsize=10)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlim(left=0)
  panels[0].set_ylabel('P(the arm of higher ER wins)')
  figures.legend(figure, handles.values(), handles, columns=2)
  return figure


def _drawn_bounds(bounds: Sequence[str]) -> list[str]:
  """True bounds; what is none only where no reward has bounds."""
  true = [b for b in bounds if not b.startswith(proposition_lib.VARIANCE)]
  if any(bound.startswith(proposition_lib.HOEFFDING) for bound in true):
    return true
  other = [b for b in bounds if b.startswith(proposition_lib.VARIANCE)]
  return true + (other[:1] if true else other)


def metrics(found: Found) -> dict[str, Any]:
  """The same numbers, by kind of gap and pair."""
  return {
    'pair': found.pair,
    'missing': dict(found.missing),
    'by_gap': {
      gap: {
        which: {
          'rows': one.rows,
          'summary': one.summary,
          'by_group': {
            rate: resample.defined(value) for rate, value in one.binned.items()
          },
          'groups': one.groups,
          'reason': one.reason,
        }
        for which, one in by_which.items()
      }
      for gap, by_which in found.judged.items()
    },
  }
