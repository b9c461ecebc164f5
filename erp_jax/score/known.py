"""How published reward models want their input, where their files don't say."""

# Name on the hub -> beginnings of text, with where that was read.
_BOS = {
  # Its template writes one. The authors' code (reward_models/load_datasets.py
  # and rm_eval/load_eval_datasets.py of YangRui2015/Generalizable-Reward-Model)
  # tokenises the rendered text as any other, which puts a second before it.
  'Ray2333/GRM-Gemma-2B-rewardmodel-ft': 'doubled',
}


def bos(model: str) -> str:
  """'doubled' or 'template', for a reward model by its name.

  The last part of the name decides, so that a copy in a folder, or one under
  another organisation, is read as the original.
  """
  by_last_part = {name.split('/')[-1]: value for name, value in _BOS.items()}
  name = model.rstrip('/').split('/')[-1].split('@')[0]
  return by_last_part.get(name, 'template')
