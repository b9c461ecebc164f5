"""A thread beside the work of the main one, which ends with it."""

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def running(work: Callable[[threading.Event], None]) -> Iterator[None]:
  """Runs `work(ended)` in a thread; it is to return soon after `ended` is set.

  Leaving waits for that.
  """
  ended = threading.Event()
  thread = threading.Thread(target=work, args=(ended,), daemon=True)
  thread.start()
  try:
    yield
  finally:
    ended.set()
    thread.join()
