"""Questions, and answers from right to beside the point."""

from erp_jax.data import prompts

PROMPTS = (
  prompts.Prompt('a', 'What is the capital of France?', 'chat'),
  prompts.Prompt('b', 'What is 2 + 2?', 'math'),
)
TEXTS = (
  [
    'The capital of France is Paris.',
    'The capital of France is Berlin.',
    'Bananas are rich in potassium and easy to peel.',
    '',
  ],
  ['2 + 2 equals 4.', '2 + 2 equals 5.', 'The sea is blue today.'],
)
