import pytest

from erp_jax.data import thinking


@pytest.mark.parametrize(
  ('response', 'seen'),
  [
    ('', ''),
    (' \nAn answer.\n', ' \nAn answer.\n'),
    ('<think>\nhm\n</think>\n\nAn answer. ', 'An answer. '),
    ('<think>\n\n</think>\n\n  indented', '  indented'),
    ('hm\n</think>\n\nAn answer.', 'An answer.'),  # The template opened it.
    ('<think>\nhm, so the answer', ''),
    ('\n <think>', ''),
    ('<think>\nhm\n</think>', ''),
    ('<think>a</think>b<think>c</think>\nd', 'd'),
    ('<think>a</think>\n<think>c', ''),
    ('<think>\n<think>\na</think>b', 'b'),
    ('The tag <think> opens it.', 'The tag <think> opens it.'),
  ],
)
def test_visible_text(response, seen):
  assert thinking.visible_text(response) == seen


@pytest.mark.parametrize(
  ('thought', 'said', 'is_cut', 'text'),
  [
    ('', 'Hi.', False, 'Hi.'),
    ('', '', True, ''),
    ('Hm.', 'Hi.', False, '<think>\nHm.\n</think>\n\nHi.'),
    ('Hm.', 'Hi', True, '<think>\nHm.\n</think>\n\nHi'),
    ('Hm', '', True, '<think>\nHm'),
    ('Hm.', '', False, '<think>\nHm.\n</think>\n\n'),
  ],
)
def test_two_parts_are_one_text_again(thought, said, is_cut, text):
  """What a user sees of it is what the server called its content."""
  assert thinking.whole_text(thought, said, is_cut) == text
  assert thinking.visible_text(text) == said
