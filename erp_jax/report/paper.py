"""The paper's own numbers (arXiv 2603.20217, Tables 1 and 2), by our names."""

import csv
import functools
import math
import pathlib
from collections.abc import Sequence

AGGREGATE = 'aggregate'
# Our names, and the paper's. A name that is not here is not in the paper.
ARMS = {
  'llama31-70b': 'llama3.1-70b',
  'llama31-8b': 'llama3.1-8b',
  'gemma2-27b': 'gemma2-27b',
  'gemma2-9b': 'gemma2-9b',
  'gemma1-7b': 'gemma1-7b',
}
REWARDS = {
  'oasst': 'OpenAssistant-RM',
  'grm': 'GRM-2B-RM',
  'internlm': 'InternLM-RM',
}
# In the order of the paper's columns.
CATEGORIES = {
  'code': 'coding',
  'math': 'math',
  'instruction_following': 'instruction_following',
  'chat': 'general_chat',
}


def r2(reward: str, arm: str, category: str | None) -> float:
  """R² in the paper, of all prompts for None; NaN where it has none."""
  column = AGGREGATE if category is None else CATEGORIES.get(category)
  row = _rows().get((REWARDS.get(reward), ARMS.get(arm)))
  return float(row[column]) if row and column else math.nan


def ordered(categories: Sequence[str]) -> list[str]:
  """The paper's categories in its order, then the others by name."""
  found = [category for category in CATEGORIES if category in categories]
  return found + sorted(set(categories) - set(found))


def title(category: str | None) -> str:
  """What the paper calls a category, or its own name; None: all prompts."""
  if category is None:
    return AGGREGATE
  return CATEGORIES.get(category, category).replace('_', ' ')


@functools.cache
def _rows() -> dict[tuple[str, str], dict[str, str]]:
  text = pathlib.Path(__file__).with_name('paper_tables.csv').read_text()
  return {
    (row['reward_model'], row['model']): row
    for row in csv.DictReader(text.splitlines())
  }
