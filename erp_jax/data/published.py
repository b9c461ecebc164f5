"""Published data sets: where their files are, and how a row is read."""

from erp_jax.data import prompts

# All sources of open-perfectblend's 1 420 909 rows. The categories are ours:
# the paper names four and no sources. The last mixes math, code and logic.
SOURCES = {
  'meta-math/MetaMathQA': 'math',
  'HuggingFaceH4/orca-math-word-problems-200k': 'math',
  'theblackcat102/evol-codealpaca-v1': 'code',
  'Post-training-Data-Flywheel/AutoIF-instruct-61k': 'instruction_following',
  'mlabonne/ultrachat_200k_sft': 'chat',
  'mlabonne/lmsys-arena-human-preference-55k-sharegpt': 'chat',
  'HuggingFaceH4/ultrafeedback_binarized': 'chat',
  'openbmb/UltraInteract_sft': '',
}


def open_perfectblend(**fields) -> prompts.PromptConfig:
  """What users ask first, exact duplicates dropped; `fields` replace some."""
  return prompts.PromptConfig(
    **{
      'path': 'hub:mlabonne/open-perfectblend',
      'files': 'data/train-*.parquet',
      'format': prompts.CONVERSATIONS,
      'prompt_column': 'conversations',
      'category_column': 'source',
      'categories': SOURCES,
      'duplicates': prompts.DROP,
    }
    | fields
  )


def mmlu_pro(**fields) -> prompts.PromptConfig:
  """The questions of its test split; `fields` replace some."""
  return prompts.PromptConfig(
    **{
      'path': 'hub:TIGER-Lab/MMLU-Pro',
      'files': 'data/test-*.parquet',
      'format': prompts.MMLU_PRO,
    }
    | fields
  )
