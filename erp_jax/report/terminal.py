"""The numbers that a run ends with, for the terminal."""

from collections.abc import Mapping, Sequence

from etils import epath
from rich import box
from rich import table as rich_table
from rich import text as rich_text

from erp_jax.report import cells, runs, tables, verdict, words
from erp_jax.report import evaluation as evaluation_lib
from erp_jax.route import evaluate


def terminal_table(
  workdir: epath.PathLike,
  rewards: Sequence[str],
  replays: Mapping[str, epath.PathLike],
) -> rich_table.Table:
  """Replays: regret of each policy at each budget; live part: R² per arm.

  Arguments and errors are those of `page.build`; titles of replays are unique.
  """
  grid = rich_table.Table.grid(padding=(1, 0))
  for name, folder in replays.items():
    replay = evaluation_lib.load(folder, name)
    if len(replay.models) > 1:
      grid.add_row(_budgets(replay))
    grid.add_row(rich_text.Text(f'Replay {name}: {verdict.routing(replay)}'))
  live = [
    evaluation_lib.load(epath.Path(workdir) / 'routes' / name, name)
    for name in rewards
  ]
  run = runs.load(workdir, rewards, live[0].models)
  grid.add_row(_r2(live, run))
  return grid


def compact(title: str, note: str) -> rich_table.Table:
  """An empty table that spares columns, for 80 characters; its note below."""
  return rich_table.Table(
    title=rich_text.Text(title),
    title_justify='left',
    caption=rich_text.Text(note) if note else None,
    caption_justify='left',
    box=box.SIMPLE_HEAD,
    collapse_padding=True,
    pad_edge=False,
  )


def of_table(shown: cells.Table) -> rich_table.Table:
  """A report's table; notes stand below their numbers."""
  table = rich_table.Table(
    title=rich_text.Text(shown.title),
    title_justify='left',
    box=box.SIMPLE_HEAD,
    pad_edge=False,
  )
  for i, name in enumerate(shown.head):
    justify = 'left' if i < shown.labels else 'right'
    table.add_column(rich_text.Text(name), justify=justify)
  for row in shown.rows:
    table.add_row(
      *(
        rich_text.Text(
          f'{cell.text}\n{cell.note}'.strip(),
          style='bold' if cell.strong else '',
        )
        for cell in row
      )
    )
  return table


def _budgets(replay: evaluation_lib.Evaluation) -> rich_table.Table:
  shown = tables.budgets(replay)
  table = rich_table.Table(
    title=rich_text.Text(f'Replay {replay.name}: regret (lower is better)'),
    title_justify='left',
  )
  table.add_column('budget, of the best arm’s cost')
  for budget in evaluate.BUDGETS:
    table.add_column(words.budget(budget), justify='right')
  for row in shown.rows:
    table.add_row(
      *(
        rich_text.Text(cell.text, style='bold' if cell.strong else '')
        for cell in row
      )
    )
  return table


def _r2(
  live: Sequence[evaluation_lib.Evaluation], run: runs.Run
) -> rich_table.Table:
  """A row per arm, a column per reward model."""
  table = rich_table.Table(
    title='Live part: R² of the predicted reward [95 % interval]',
    title_justify='left',
  )
  table.add_column('arm')
  for evaluation in live:
    table.add_column(
      rich_text.Text(run.reward_label(evaluation.name)), justify='right'
    )
  for model in live[0].models:
    row = [rich_text.Text(live[0].names[model])]
    for evaluation in live:
      value, lo, hi = evaluation.interval('r2', model, 'aggregate')
      row.append(
        rich_text.Text(f'{words.number(value)} {words.interval(lo, hi)}')
      )
    table.add_row(*row)
  return table
