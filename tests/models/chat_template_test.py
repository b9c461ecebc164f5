"""Thinking: the switch of a template, and where it opens."""

import pytest

from erp_jax.core import errors
from erp_jax.data import thinking
from erp_jax.models import chat_template

_HEAD = '<|im_start|>assistant\n'
_CHATML = (
  "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}"
  "{{ '<|im_end|>\\n' }}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
)
# As Qwen3's: thinking is closed at once where it is switched off.
_SWITCH = _CHATML + (
  '{% if enable_thinking is defined and enable_thinking is false %}'
  "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}"
)
# As that of models that always think.
_ALWAYS = _CHATML + "{{ '<think>\\n' }}{% endif %}"
_NEVER = _CHATML + '{% endif %}'
_HI = [{'role': 'user', 'content': 'Hi <think>'}]
_USER = '<|im_start|>user\nHi <think><|im_end|>\n'


def _render(source, *args, **kwargs):
  template = chat_template.ChatTemplate(source=source, tokens={})
  return template.render(_HI, *args, **kwargs)


def test_the_switch_reaches_the_template():
  assert _render(_SWITCH) == _USER + _HEAD
  assert _render(_SWITCH, thinking='on') == _USER + _HEAD
  off = _USER + _HEAD + '<think>\n\n</think>\n\n'
  assert _render(_SWITCH, thinking='off') == off
  # Nothing is thought where nothing is to be answered.
  assert _render(_SWITCH, False, thinking='off') == _USER


def test_the_default_leaves_the_variable_undefined():
  source = '{{ enable_thinking is defined }}|{{ enable_thinking }}'
  assert _render(source) == 'False|'
  assert _render(source, thinking='on') == 'True|True'
  assert _render(source, thinking='off') == 'True|False'


@pytest.mark.parametrize('source', [_ALWAYS, _NEVER])
@pytest.mark.parametrize('thinking', ['on', 'off'])
def test_a_switch_that_does_nothing_is_refused(source, thinking):
  assert _render(source).startswith(_USER + _HEAD)
  message = f"thinking is '{thinking}', but .* set arms.NAME.thinking="
  with pytest.raises(errors.UserError, match=message) as e:
    _render(source, thinking=thinking)
  assert '\n' not in str(e.value)


def test_where_the_template_opens_the_thinking():
  assert thinking.open_thinking(_render(_ALWAYS)) == '<think>\n'
  assert thinking.open_thinking(_render(_NEVER)) == ''
  for switch in ('default', 'on', 'off'):
    text = _render(_SWITCH, thinking=switch)
    assert thinking.open_thinking(text) == ''
