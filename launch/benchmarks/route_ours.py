"""Our router on the routing workload."""

import numpy as np
import threadpoolctl  # Comes with scikit-learn, of the extra `test`.

from erp_jax import serve
from erp_jax.embed import embedder
from erp_jax.probe import ridge
from erp_jax.route import policy
from launch.benchmarks import contest, embed_ours


def prompt(argument):
  """Tokenize, embed, predict and choose, for one prompt after another."""
  work, dtype = argument
  cfg = embedder.EmbedConfig(encoder=work.encoder, dtype=dtype)
  encoder = embedder.load(cfg)
  fitted = encoder.embed(embed_ours.texts(work.fit_prompts)).emb_NE
  router = serve.Router(_policy(work, fitted), encoder)
  router.warm_up()
  texts = embed_ours.texts(work.num_prompts)
  one = embed_ours.timed(encoder, texts, {})().flops

  def run() -> contest.Work:
    for text in texts:
      router.route([text], budget=work.budget)
    return contest.Work(len(texts), one)

  return run


def decide(argument):
  """Predict and choose on one core, `batch` embeddings at a time."""
  work, batch = argument
  encoder = embedder.load(embedder.EmbedConfig(encoder=work.encoder))
  emb_NE = encoder.embed(embed_ours.texts(max(work.fit_prompts, batch))).emb_NE
  made = _policy(work, emb_NE)
  ids = [str(n) for n in range(batch)]

  def run() -> contest.Work:
    num_batches = -(-work.num_decisions // batch)
    with threadpoolctl.threadpool_limits(1):
      for _ in range(num_batches):
        made.decide(emb_NE[:batch], budget=work.budget, prompt_ids=ids)
    return contest.Work(num_batches * batch)

  return run


def _policy(work, emb_NE) -> policy.Policy:
  """Arms whose rewards are random linear functions; dearer ones are better."""
  rng = np.random.default_rng(work.seed)
  rank_M = np.arange(work.num_arms)
  theta_EM = rng.standard_normal((emb_NE.shape[1], work.num_arms))
  noise_NM = rng.standard_normal((len(emb_NE), work.num_arms))
  reward_NM = emb_NE @ theta_EM + 0.1 * rank_M + 0.3 * noise_NM
  cfg = ridge.RidgeConfig(beta=1.0)
  probe = ridge.fit(emb_NE, reward_NM, cfg)
  return policy.calibrate(
    name=policy.ERP,
    arms=[f'arm {m}' for m in rank_M],
    cost_M=2.0**rank_M,
    mean_M=reward_NM.mean(axis=0),
    bias_M=probe.bias_M,
    parts=[policy.ridge_part(probe, emb_NE, reward_NM, cfg, 0.99)],
    emb_NE=emb_NE,
  )
