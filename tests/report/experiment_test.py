"""What experiments share: their splits, and a section of each Records."""

import numpy as np
import pytest

from erp_jax.core import errors
from erp_jax.data import splits
from erp_jax.report import cells, document, experiment


def test_masks_are_the_splits_of_the_first_seeds(make_records):
  records = make_records()
  common = experiment.ExperimentConfig(splits=3, train_frac=0.25)
  found = list(common.masks(records))
  assert len(found) == 3
  for seed, train_N in enumerate(found):
    expected_N = splits.train_mask(
      records.prompt_ids, records.category_N.tolist(), seed, 0.25
    )
    np.testing.assert_array_equal(train_N, expected_N)
    assert train_N.sum() == 30 and splits.test_over_train(train_N) == 3
  np.testing.assert_array_equal(list(common.track(records, 'some')), found)


def test_a_section_per_records_holds_a_part_per_reward_model(make_records):
  table = cells.Table('kind', 'A table', ['a'], [])
  part = document.Section(title='Part', text=[])

  def say(one):
    rewards = {reward: (part, {'of': reward}) for reward in one.rewards}
    return experiment.Part([f'About {one.name}.'], rewards, [table])

  result = experiment.gather(
    [make_records(), make_records(name='other', rewards=('third',))], say
  )
  assert result.metrics == {
    'made': {'first': {'of': 'first'}, 'second': {'of': 'second'}},
    'other': {'third': {'of': 'third'}},
  }
  made, other = result.sections
  assert made.title == 'Made up' and made.origin == 'simulated'
  assert other.text == ['About other.'] and made.tables == [table]
  assert (len(made.sections), len(other.sections)) == (2, 1)


def test_no_split_is_refused():
  with pytest.raises(errors.UserError, match='splits must be >= 1, got 0'):
    experiment.ExperimentConfig(splits=0)
