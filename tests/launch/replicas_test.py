"""What replicas and groups are for, and what not; tests/faults kills some."""

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(
  'binary, flags, words',
  [
    ('fit', ['replicas=2'], 'launch.fit is for one process'),
    ('pipeline', ['hosts=2'], 'launch.pipeline is for one process'),
    ('sample', ['replicas=2', 'replica=2'], 'must be 0 to'),
  ],
)
def test_what_replicas_cannot_do_is_one_line(
  binary, flags, words, tiny, launch, tmp_path
):
  flags = [f'--config.runtime.{flag}' for flag in flags]
  done = launch(binary, *tiny.flags(tmp_path / 'run'), *flags)
  assert done.returncode == 1
  assert words in done.stderr.strip().splitlines()[-1]
  assert 'Traceback' not in done.stderr
