"""The tables of what the live part ran."""

from collections.abc import Mapping
from typing import Any

from erp_jax.report import cells, runs, words
from erp_jax.report import evaluation as evaluation_lib

Cell = cells.Cell
# Counted where a reward may have nothing to say about a prompt.
_NOT_CHECKED = 'not_checked'


def build(
  run: runs.Run, evaluation: evaluation_lib.Evaluation
) -> list[cells.Table]:
  """Arms, sampling, reward models."""
  return [_arms(run, evaluation), _sampling(run), _rewards(run)]


def _arms(run: runs.Run, evaluation: evaluation_lib.Evaluation) -> cells.Table:
  cost = f'Mean cost ({evaluation.cost_unit})'
  rows = []
  for arm in run.arms:
    use = runs.arm_use(run, arm)
    rows.append(
      [
        Cell(arm),
        Cell(use.model),
        Cell(use.system_prompt or 'none (the chat template’s own default)'),
        Cell(
          words.count(use.num_parameters) if use.num_parameters else words.DASH
        ),
        Cell(words.cost(evaluation.costs[arm])),
      ]
    )
  return cells.Table(
    'arms',
    'Arms: what a prompt could be sent to.',
    ['Arm', 'Model', 'System prompt', 'Parameters', cost],
    rows,
    labels=3,
  )


def _sampling(run: runs.Run) -> cells.Table:
  """A column per arm."""
  columns = []
  vendor = any('generation' in run.sampled[arm]['info'] for arm in run.arms)
  for arm in run.arms:
    use = runs.arm_use(run, arm)
    sample = run.sampled[arm]['identity']['sample']
    # Of the checkpoint's vendor, or the config's temperature alone.
    drawn = run.sampled[arm]['info'].get('generation', sample)
    columns.append(
      {
        'responses per prompt (K)': str(sample['k']),
        'temperature': f'{drawn["temperature"]:g}',
        **(_vendor_rows(drawn) if vendor else {}),
        'limit on tokens': words.count(sample['max_new_tokens']),
        'seed': str(sample['seed']),
        'responses': words.count(use.responses),
        'tokens sampled': words.count(use.tokens),
        'mean tokens of a response': words.number(use.mean_tokens, 1),
        'mean tokens of a prompt': words.number(use.mean_prompt_tokens, 1),
        'slots busy': words.share(use.busy_frac),
        'cut at the limit': words.share(use.cut_frac),
      }
    )
  rows = [
    [Cell(what), *(Cell(column[what]) for column in columns)]
    for what in columns[0]
  ]
  return cells.Table(
    'sampling',
    'Sampling. Responses cut at the limit are scored as they are. Slots busy: '
    'the share of the decoder’s steps that made a token.',
    ['', *run.arms],
    rows,
  )


def _vendor_rows(drawn: Mapping[str, Any]) -> dict[str, str]:
  missing = drawn.get('not_applied', {})
  return {
    'top-k': str(drawn.get('top_k', 0) or 'all'),
    'top-p': f'{drawn.get("top_p", 1.0):g}',
    'the vendor’s, not applied': (
      ', '.join(f'{name} {value}' for name, value in missing.items()) or 'none'
    ),
  }


def _rewards(run: runs.Run) -> cells.Table:
  rows = []
  unchecked = any(m['counts'].get(_NOT_CHECKED) for m in run.scored.values())
  for (reward, arm), manifest in run.scored.items():
    made = manifest['identity']['reward']
    rows.append(
      [
        Cell(run.reward_label(reward)),
        Cell(made['kind']),
        Cell(made['model'] or 'a program'),
        Cell(arm),
        Cell(words.count(run.rewards[reward, arm].num_rows)),
        Cell(words.count(manifest['counts']['positions'])),
        Cell(words.count(manifest['counts']['non_finite'])),
        *(
          [Cell(words.count(manifest['counts'].get(_NOT_CHECKED, 0)))]
          if unchecked
          else []
        ),
      ]
    )
  return cells.Table(
    'rewards',
    'Reward models. Rewards that are not finite leave the mean'
    f'{", and so do prompts without a check" if unchecked else ""}.',
    [
      'Reward model',
      'Kind',
      'Scored by',
      'Arm',
      'Responses',
      'Positions read',
      'Not finite',
      *(['No check for this prompt'] if unchecked else []),
    ],
    rows,
    labels=4,
  )
