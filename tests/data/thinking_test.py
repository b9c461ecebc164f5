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
