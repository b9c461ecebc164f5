"""The tables of what the live part ran."""

from erp_jax.report import evaluation as evaluation_lib
from erp_jax.report import runs, tables, words

Cell = tables.Cell


def build(
  run: runs.Run, evaluation: evaluation_lib.Evaluation
) -> list[tables.Table]:
  """Arms, sampling, reward models."""
  return [_arms(run, evaluation), _sampling(run), _rewards(run)]


def _arms(run: runs.Run, evaluation: evaluation_lib.Evaluation) -> tables.Table:
  cost = f'Mean cost ({evaluation.cost_unit})'
  rows = []
  for arm in run.arms:
    use = runs.arm_use(run, arm)
    rows.append(
      [
        Cell(arm),
        Cell(use.model),
        Cell(use.system_prompt or 'none (the chat template’s own default)'),
        Cell(words.count(use.num_parameters)),
        Cell(words.cost(evaluation.costs[arm])),
      ]
    )
  return tables.Table(
    'arms',
    'Arms: what a prompt could be sent to.',
    ['Arm', 'Model', 'System prompt', 'Parameters', cost],
    rows,
    labels=3,
  )


def _sampling(run: runs.Run) -> tables.Table:
  rows = []
  for arm in run.arms:
    use = runs.arm_use(run, arm)
    sample = run.sampled[arm]['identity']['sample']
    rows.append(
      [
        Cell(arm),
        Cell(words.count(use.responses)),
        Cell(str(sample['k'])),
        Cell(f'{sample["temperature"]:g}'),
        Cell(str(sample['max_new_tokens'])),
        Cell(str(sample['seed'])),
        Cell(words.count(use.tokens)),
        Cell(words.number(use.mean_tokens, 1)),
        Cell(words.number(use.mean_prompt_tokens, 1)),
        Cell(words.share(use.busy_frac)),
        Cell(words.share(use.cut_frac)),
      ]
    )
  return tables.Table(
    'sampling',
    'Sampling. Cut responses hit the length limit; they still count.',
    [
      'Arm',
      'Responses',
      'K per prompt',
      'Temperature',
      'Most tokens',
      'Seed',
      'Tokens sampled',
      'Mean tokens',
      'Mean prompt tokens',
      'Slots busy',
      'Cut',
    ],
    rows,
  )


def _rewards(run: runs.Run) -> tables.Table:
  rows = []
  for (reward, arm), manifest in run.scored.items():
    made = manifest['identity']['reward']
    rows.append(
      [
        Cell(run.reward_label(reward)),
        Cell(made['kind']),
        Cell(made['model'] or 'no model'),
        Cell(arm),
        Cell(_scored_by(manifest)),
        Cell(words.count(run.rewards[reward, arm].num_rows)),
        Cell(words.count(manifest['counts']['positions'])),
        Cell(words.count(manifest['counts']['non_finite'])),
      ]
    )
  return tables.Table(
    'rewards',
    'Reward models. Rewards that are not finite leave the mean.',
    [
      'Reward model',
      'Kind',
      'Model',
      'Arm',
      'Scored by',
      'Responses',
      'Positions read',
      'Not finite',
    ],
    rows,
    labels=5,
  )


def _scored_by(manifest) -> str:
  if manifest['info']['self_scored']:
    return 'the model that answered'
  made = manifest['identity']['reward']
  return 'another model' if made['model'] else 'a program'
