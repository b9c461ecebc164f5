"""Trains a Bradley-Terry reward model on preference pairs: WORKDIR/reward.

python -m launch.train_reward --config=configs/train_reward.py \
  --config.pairs.path=pairs.jsonl --workdir=runs/reward

A row of pairs.jsonl has prompt, chosen and rejected.
"""

from rich import console, table

from erp_jax.score import train_stage
from launch import app

_ROWS = {
  'held_out': 'held-out pairs',
  'longer': 'the same, by preferring the longer response',
  'train': 'training pairs',
}


def main(cfg, workdir):
  metrics = train_stage.run(workdir, cfg)
  shown = table.Table(title='Share of pairs ranked right', title_justify='left')
  shown.add_column('')
  for name in ('accuracy', '95 % interval', 'pairs', 'prompts', 'ties'):
    shown.add_column(name, justify='right')
  for name, label in _ROWS.items():
    row = metrics[name]
    shown.add_row(
      label,
      f'{row["accuracy"]:.3f}',
      f'{row["lo"]:.3f} to {row["hi"]:.3f}',
      *(str(row[count]) for count in ('pairs', 'prompts', 'ties')),
    )
  out = console.Console()
  out.print(shown)
  fit, read = metrics['fit'], metrics['read']
  out.print(
    f'Epoch {fit["epoch"]} of {len(fit["curves"]["train"])} is kept; '
    f'{read["cut"]} of {read["responses"]} texts were cut to '
    f'{cfg.features.max_tokens} tokens.',
    highlight=False,
  )


if __name__ == '__main__':
  app.run(main, train_stage.TrainRewardConfig)
