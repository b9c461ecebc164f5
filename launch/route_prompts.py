"""Routes prompts: JSON lines of prompts in, JSON lines of decisions out.

python -m launch.route_prompts --router=runs/mine/router/verify --budget=0.5 \
  --input=prompts.jsonl --output=decisions.jsonl

A row of the input has `prompt`, and `id` if it likes. A line of the output has
the arm, its cost, and by arm the predicted reward, its standard deviation and
the chance of being the best.
"""

import contextlib
import logging
import os
import sys

from absl import app, flags

from erp_jax import serve
from erp_jax.core import errors, failures, progress, runtime
from erp_jax.serve import rows
from launch import parsing

_ROUTER = flags.DEFINE_string('router', None, 'Folder of the router.')
_BUDGET = flags.DEFINE_float(
  'budget', None, "Ceiling on the mean cost, as a share of the best arm's."
)
_LAM = flags.DEFINE_float('lam', None, 'Price of a unit of cost, in reward.')
_INPUT = flags.DEFINE_string('input', '-', 'File of prompts; - is stdin.')
_OUTPUT = flags.DEFINE_string('output', '-', 'File to write; - is stdout.')
_TEXT = flags.DEFINE_bool('text', False, 'The input has one prompt a line.')
_BATCH = flags.DEFINE_integer('batch', 256, 'Prompts at once.', lower_bound=1)
_ENCODER = flags.DEFINE_string(
  'encoder', '', "The encoder's checkpoint, if it is not where it was."
)


def main(argv):
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments: {" ".join(argv[1:])}')
  for name in ('erp_jax', 'launch', '__main__'):
    logging.getLogger(name).setLevel(logging.INFO)
  try:
    with runtime.started(runtime.RuntimeConfig()):
      _run()
  except errors.UserError as e:
    parsing.stop(e)
  except KeyboardInterrupt:
    parsing.stop('stopped.')


def _run():
  router = serve.Router.load(_ROUTER.value, _ENCODER.value)
  price = {'budget': _BUDGET.value, 'lam': _LAM.value}
  router.policy.check(**price)
  decide = lambda prompts, ids: router.route(prompts, ids=ids, **price)
  with contextlib.ExitStack() as stack:
    source, target = sys.stdin.buffer, sys.stdout
    if _INPUT.value != '-':
      if not os.path.isfile(_INPUT.value):
        raise errors.UserError(f'--input={_INPUT.value} is no file here.')
      source = stack.enter_context(open(_INPUT.value, 'rb'))
    if _OUTPUT.value != '-':
      if os.path.realpath(_OUTPUT.value) == os.path.realpath(_INPUT.value):
        raise errors.UserError(
          f'--output={_OUTPUT.value} is the input too: name another file.'
        )
      with failures.writing(_OUTPUT.value, 0):
        target = stack.enter_context(open(_OUTPUT.value, 'w'))
    target.reconfigure(encoding='utf-8')
    advance = stack.enter_context(progress.track('route', 0, 'prompts'))
    lines = rows.read(source, _INPUT.value, _TEXT.value)
    for line in rows.route(decide, lines, _BATCH.value):
      failures.write_line(target, target.name, line.json())
      advance(1)


if __name__ == '__main__':
  flags.mark_flags_as_required(['router'])
  app.run(main)
