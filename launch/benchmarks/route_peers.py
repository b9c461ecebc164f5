"""What a router waits for at least: sentence-transformers on one prompt."""

from erp_jax.models import checkpoint
from launch.benchmarks import contest, embed_ours, embed_peers


def prompt(argument):
  """Embeds one prompt after another, and decides nothing."""
  work, dtype = argument
  path = checkpoint.open_checkpoint(work.encoder).path
  model = embed_peers.load(path, dtype)
  texts = embed_ours.texts(work.num_prompts)

  def run() -> contest.Work:
    for text in texts:
      model.encode([text], show_progress_bar=False)
    return contest.Work(len(texts))

  return run
