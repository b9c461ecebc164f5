"""Thinking from the arm to the reward: rendered, recorded, not judged."""

import shutil

import numpy as np
import pytest
from etils import epath

from erp_jax.core import errors, store
from erp_jax.core import workdir as workdir_lib
from erp_jax.data import arms, prompts
from erp_jax.sample import engine
from erp_jax.sample import stage as sample
from erp_jax.score import rewards
from erp_jax.score import stage as score

# Added to the tiny decoder's template: Qwen3's switch, and an open tag.
_SWITCH = (
  '{% if enable_thinking is defined and enable_thinking is false %}'
  "{{ '<think></think>' }}{% endif %}"
)
_ALWAYS = "{{ '<think>\\n' }}"
_CFG = sample.SampleConfig(
  k=2,
  max_new_tokens=8,
  dtype='float32',
  engine=engine.EngineConfig(slots=8, prompt_buckets=(128,)),
)
pytestmark = pytest.mark.slow
_VERIFY = {'verify': rewards.RewardConfig()}


@pytest.fixture(scope='module')
def run(tiny, tmp_path_factory):
  """(workdir, arms, prompts) of four arms, sampled and verified."""
  root = tmp_path_factory.mktemp('thinking')
  for name, ending in (('switch', _SWITCH), ('always', _ALWAYS)):
    shutil.copytree(tiny.decoder, root / name)
    file = root / name / 'chat_template.jinja'
    file.write_text(file.read_text() + ending)
  made = {
    'default': arms.Arm(model=str(root / 'switch')),
    'on': arms.Arm(model=str(root / 'switch'), thinking='on'),
    'off': arms.Arm(model=str(root / 'switch'), thinking='off'),
    'always': arms.Arm(model=str(root / 'always')),
  }
  asked = prompts.load(prompts.PromptConfig(path=str(tiny.prompts)))[:4]
  workdir = workdir_lib.Workdir(epath.Path(root / 'run'), {'versions': {}})
  sample.run(workdir, made, asked, _CFG)
  score.run(workdir, _VERIFY, made, asked)
  return workdir, made, asked


def _responses(workdir, name):
  return store.read_table(workdir.path / 'responses' / name).to_pydict()


def _rewards(workdir, name):
  table = store.read_table(workdir.path / 'rewards' / 'verify' / name)
  return np.array(table['reward'])


def test_the_prompt_is_rendered_as_the_arm_says(run):
  tokens = {
    name: np.array(_responses(run[0], name)['prompt_tokens']) for name in run[1]
  }
  np.testing.assert_array_equal(tokens['on'], tokens['default'])
  # A token a byte.
  added = len('<think></think>')
  np.testing.assert_array_equal(tokens['off'], tokens['default'] + added)
  added = len('<think>\n')
  np.testing.assert_array_equal(tokens['always'], tokens['default'] + added)


def test_thinking_that_the_template_opened_is_recorded_and_not_judged(run):
  responses = _responses(run[0], 'always')
  for text, num in zip(responses['text'], responses['num_tokens'], strict=True):
    assert text.startswith('<think>\n')
    # The noise is named by the model's folder, another one in each run of the
    # tests: now and then the first token is the stop.
    assert len(text) > 8 or num == 1
  assert (_rewards(run[0], 'always') == 0).all()
  for name in ('default', 'on', 'off'):
    assert not any('<think>' in t for t in _responses(run[0], name)['text'])


def test_every_scorer_is_given_what_a_user_sees(run, monkeypatch):
  """What the stage hands to a reward model, whatever its kind."""
  workdir, _, asked = run
  table = store.read_table(workdir.path / 'responses' / 'default')
  texts = ['<think>a</think>\n\nSeen.', '<think>a'] * len(asked)
  column = table.column_names.index('text')
  table = table.set_column(column, 'text', [texts])
  monkeypatch.setattr(store, 'read_table', lambda folder: table)
  found = score._texts(workdir.path, asked, 0)
  assert found == {prompt.id: ['Seen.', ''] for prompt in asked}
  assert score._texts(workdir.path, asked, 1) == {
    p.id: ['Seen.'] for p in asked
  }


def test_only_a_switch_that_is_set_is_part_of_the_identity(run):
  workdir, made, asked = run
  for name, arm in made.items():
    identity = sample.artifact(workdir, name, arm, asked, _CFG).identity['arm']
    want = {'name', 'model', 'system_prompt', 'revision'}
    if name in ('on', 'off'):
      want.add('thinking')
      assert identity['thinking'] == name
    assert set(identity) == want


@pytest.mark.parametrize(('name', 'other'), [('off', 'on'), ('on', 'default')])
def test_rewards_of_responses_of_another_switch_are_refused(run, name, other):
  workdir, made, asked = run
  with pytest.raises(errors.UserError, match='made with arm.thinking = "o'):
    score.artifact(
      workdir, 'verify', name, made[other], _VERIFY['verify'], asked
    )
  with pytest.raises(errors.UserError, match='made with arm.thinking = null'):
    score.artifact(
      workdir, 'verify', 'default', made[name], _VERIFY['verify'], asked
    )


def test_a_switch_that_the_template_lacks_is_refused(run, tmp_path):
  _, made, asked = run
  workdir = workdir_lib.Workdir(epath.Path(tmp_path), {'versions': {}})
  arm = arms.Arm(model=made['always'].model, thinking='off')
  with pytest.raises(errors.UserError, match="thinking is 'off', but the chat"):
    sample.run(workdir, {'a': arm}, asked, _CFG)
