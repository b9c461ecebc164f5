"""Builds a published data set of prompts with tfds, as ArrayRecord files.

python -m launch.build_dataset --dataset=open_perfectblend --data_dir=data

Prints what became of each source's rows, and the folder, which is then read
without the hub: --config.prompts.path=FOLDER, with the config of the data set.
Downloads it from the hub, or takes files that are here with --path. Needs
tensorflow_datasets, and no TensorFlow: pip install 'erp_jax[data]'.
"""

from absl import app, flags
from rich import console

from erp_jax.core import errors
from erp_jax.data.tfds import extra
from launch import parsing

_DATASET = flags.DEFINE_string(
  'dataset', None, 'What is built: open_perfectblend or mmlu_pro.'
)
_DATA_DIR = flags.DEFINE_string(
  'data_dir', None, 'Folder of built data sets; what is there stays.'
)
_PATH = flags.DEFINE_string(
  'path', '', "File, folder, or hub:ORG/NAME@REVISION; else the hub's latest."
)
_FILES = flags.DEFINE_string(
  'files', '', "Which files of a folder (all of Parquet) or of the hub's."
)


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments: {" ".join(argv[1:])}')
  try:
    built = extra.module()
    folder = built.build(
      _DATASET.value, _DATA_DIR.value, _PATH.value, _FILES.value
    )
    counts = built.counts(folder)
  except errors.UserError as e:
    parsing.stop(e)
  out = console.Console(soft_wrap=True, highlight=False, markup=False)
  for source, count in counts.items():
    said = [f'{n} {why}' for why, n in count.items() if why != 'category']
    out.print(
      f'{source} ({count["category"] or "no category"}): {", ".join(said)}'
    )
  out.print(folder)


if __name__ == '__main__':
  flags.mark_flags_as_required(['dataset', 'data_dir'])
  app.run(main)
