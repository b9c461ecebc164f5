import math
import statistics

import pytest

from erp_jax.data import simulate_config
from erp_jax.report import paper

_ARMS = ('llama31-8b', 'llama31-70b', 'gemma2-9b', 'gemma2-27b', 'gemma1-7b')


@pytest.mark.parametrize(
  ('reward', 'means'),
  [
    ('oasst', (0.508, 0.376, 0.276, 0.250, 0.442)),
    ('grm', (0.374, 0.572, 0.004, 0.134, 0.276)),
    ('internlm', (0.286, 0.242, 0.072, -0.016, 0.206)),
  ],
)
def test_column_means_are_those_that_the_tables_have(reward, means):
  """Worked out apart, from the printed tables."""
  for category, mean in zip((None, *paper.CATEGORIES), means, strict=True):
    values = [paper.r2(reward, arm, category) for arm in _ARMS]
    assert statistics.fmean(values) == pytest.approx(mean, abs=1e-9)


def test_single_numbers_stand_where_they_belong():
  assert paper.r2('oasst', 'llama31-70b', 'code') == 0.41
  assert paper.r2('grm', 'llama31-8b', 'math') == -0.21
  assert paper.r2('internlm', 'gemma1-7b', None) == 0.44


def test_what_is_not_in_the_paper_is_nan():
  assert math.isnan(paper.r2('verify', 'gemma1-7b', None))
  assert math.isnan(paper.r2('grm', 'gemma3-7b', None))
  assert math.isnan(paper.r2('grm', 'gemma1-7b', 'law'))


def test_names_are_those_of_the_simulation():
  cfg = simulate_config.SimulationConfig()
  assert set(cfg.arms) == set(paper.ARMS)
  assert set(cfg.rewards) == set(paper.REWARDS)
  assert set(cfg.categories) == set(paper.CATEGORIES)


def test_categories_stand_in_the_papers_order():
  found = paper.ordered(['law', 'chat', 'math', 'art', 'code'])
  assert found == ['code', 'math', 'chat', 'art', 'law']
  titles = [paper.title(category) for category in (None, 'chat', 'law')]
  assert titles == ['aggregate', 'general chat', 'law']
