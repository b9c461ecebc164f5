"""The report: evaluations and a run's artefacts in, one HTML file out."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from etils import epath

from erp_jax.core import errors, progress, store
from erp_jax.data import prompts as prompts_lib
from erp_jax.report import (
  cells,
  document,
  figures,
  frontier,
  run_tables,
  runs,
  tables,
  verdict,
  words,
)
from erp_jax.report import evaluation as evaluation_lib

TITLE = 'Expected reward prediction and routing'
_TEMPLATE = 'report.html.j2'
_MAX_SAMPLES = 6


@dataclasses.dataclass(frozen=True)
class Figure:
  """A figure on the page: its file, the file's bytes, and what it shows."""

  file: str
  png: bytes
  caption: str

  @property
  def uri(self) -> str:
    return document.data_uri(self.png)


@dataclasses.dataclass(frozen=True)
class Part:
  """One evaluation, as the page shows it."""

  evaluation: evaluation_lib.Evaluation
  label: str
  figures: Mapping[str, Figure]
  tables: Mapping[str, cells.Table]

  @property
  def scope(self) -> str:
    e = self.evaluation
    return (
      f'{len(e.models)} arms ({words.join(list(e.names.values()))}), fitted on '
      f'{words.count(e.num_prompts("train"))} prompts and tested on '
      f'{words.count(e.num_prompts("test"))} others.'
    )

  @property
  def made(self) -> str:
    """Split seeds, and how many of what went in or was left out."""
    seeds = words.join([str(seed) for seed in self.evaluation.seeds])
    counts = [
      f'{what.replace("_", " ")} {words.count(number)}'
      for what, number in self.evaluation.about['counts'].items()
    ]
    return '; '.join([f'split seeds {seeds}', *counts])

  @property
  def routing(self) -> str:
    return verdict.routing(self.evaluation)

  @property
  def predictability(self) -> str:
    return verdict.predictability(self.evaluation)


def build(
  workdir: epath.PathLike,
  rewards: Sequence[str],
  replays: Mapping[str, epath.PathLike],
  prompts: Sequence[prompts_lib.Prompt] = (),
) -> epath.Path:
  """Writes report/report.html and its figures; returns the page's path.

  Args:
    workdir: the run; `routes/{reward}`, `responses` and `rewards` are in it.
    rewards: reward models of the live part, the headline first.
    replays: {title: evaluation folder}; the verdict rests on these. Titles are
      unique: the caller checks that no two replays share one.
    prompts: their texts are shown with the sample responses.
  Raises:
    UserError: no reward model is named, or an input is missing or altered.
  """
  if not rewards:
    raise errors.UserError(
      'the report needs at least one reward model, got none: name one in '
      'config.rewards.'
    )
  workdir = epath.Path(workdir)
  live = [
    evaluation_lib.load(workdir / 'routes' / name, name) for name in rewards
  ]
  recorded = [
    evaluation_lib.load(folder, name) for name, folder in replays.items()
  ]
  run = runs.load(workdir, rewards, live[0].models)
  with progress.track('report', len(recorded) + len(live), 'parts') as advance:
    replay_parts = [
      _part(e, e.name, f'replay-{i}', advance)
      for i, e in enumerate(recorded, start=1)
    ]
    live_parts = [
      _part(e, run.reward_label(e.name), f'live-{e.name}', advance)
      for e in live
    ]
  html = document.render(
    _TEMPLATE,
    title=TITLE,
    replays=replay_parts,
    live=live_parts,
    reward_labels={name: run.reward_label(name) for name in rewards},
    samples=_samples(run, live[0], prompts),
    run_tables=run_tables.build(run, live[0]),
    provenance=runs.provenance(run),
  )
  folder = workdir / 'report'
  for part in [*replay_parts, *live_parts]:
    for figure in part.figures.values():
      store.write_bytes(folder / figure.file, figure.png)
  store.write_bytes(folder / 'report.html', html.encode())
  return folder / 'report.html'


def _part(
  evaluation: evaluation_lib.Evaluation,
  label: str,
  file: str,
  advance: Callable[[int], None],
) -> Part:
  """Tables and figures of one evaluation; routing needs two arms."""
  shown_tables = {'r2': tables.r2(evaluation)}
  drawn = {
    'predicted': (
      figures.predicted(evaluation),
      'Predicted against actual reward of each test prompt, a panel per arm. '
      'On the dashed line a prediction is exactly right.',
    )
  }
  if len(evaluation.models) > 1:
    for make in (tables.budgets, tables.paired, tables.auroc, tables.wins):
      shown_tables[make.__name__] = make(evaluation)
    drawn['frontier'] = (
      frontier.draw(frontier.from_evaluation(evaluation)),
      'What more money buys: the regret of each policy at each mean cost. '
      'Lower and further left is better.',
    )
    drawn['wins'] = (
      figures.wins(evaluation),
      'Which arm is best how often, in truth and as predicted.',
    )
  shown_figures = {
    kind: Figure(f'{file}-{kind}.png', figures.png(figure), caption)
    for kind, (figure, caption) in drawn.items()
  }
  advance(1)
  return Part(evaluation, label, shown_figures, shown_tables)


def _samples(
  run: runs.Run,
  evaluation: evaluation_lib.Evaluation,
  prompts: Sequence[prompts_lib.Prompt],
) -> list[runs.Sample]:
  """A few test prompts with all their responses."""
  test = evaluation.predictions['split'] == 'test'
  picked = runs.pick(
    evaluation.predictions['prompt_id'][test].tolist(),
    evaluation.predictions['category'][test].tolist(),
    _MAX_SAMPLES,
  )
  return runs.samples(run, picked, {p.id: p.prompt for p in prompts})
