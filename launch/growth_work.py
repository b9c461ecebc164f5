"""The work of each stage at given sizes, and how long it takes.

Random weights of a small decoder, the real MiniLM, random rewards: what is
computed depends on sizes alone, but for the lengths of sampled responses.
"""

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from erp_jax.core import runtime
from erp_jax.embed import embedder
from erp_jax.models import decoder, decoder_weights
from erp_jax.models import params as params_lib
from erp_jax.probe import ridge
from erp_jax.route import path
from erp_jax.sample import engine, noise, programs
from erp_jax.score import reader

_DECODER = decoder.DecoderConfig(
  vocab_size=4096,
  num_layers=4,
  width=256,
  mlp=768,
  heads=4,
  kv_heads=2,
  head_dim=64,
  max_position=4096,
  norm_eps=1e-5,
  tied=True,
  rope_theta=10000.0,
)
_NEW_TOKENS = 32
# Of the random decoder's ids: a response stops after 64 tokens on average, or
# at the longest.
_STOP_IDS = tuple(range(64))
_BATCH_TOKENS = 4096
Run = Callable[[], None]


def measure(
  stage: str, works: Sequence[Mapping[str, int]], repeats: int, devices: int
) -> list[float]:
  """Seconds of the fastest run at each of these sizes, after a first one.

  For a process of its own: it fixes the number of its CPU devices.
  """
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_num_cpu_devices', devices)
  with runtime.started(runtime.RuntimeConfig(data=devices)):
    return [min(_times(WORKS[stage](work), repeats)) for work in works]


def _times(run: Run, repeats: int) -> Iterator[float]:
  run()
  for _ in range(repeats):
    start = time.perf_counter()
    run()
    yield time.perf_counter() - start


def _sample(sizes: Mapping[str, int]) -> Run:
  params = _params(_DECODER)
  task = programs.Task(
    model=_DECODER,
    num_ids=_DECODER.vocab_size,
    stop_ids=_STOP_IDS,
    k=sizes['k'],
    temperature=1.0,
    max_new_tokens=_NEW_TOKENS,
    seed=0,
  )
  prompts = _ids(sizes['prompts'], sizes['prompt_tokens'])
  names = list(map(str, range(len(prompts))))
  words = [
    noise.response_words(f'arm {m}', names, sizes['k'])
    for m in range(sizes['arms'])
  ]
  cfg = engine.EngineConfig(slots=128)

  def run() -> None:
    for words_NKJ in words:
      engine.generate(params, task, cfg, prompts, words_NKJ)

  return run


def _score(sizes: Mapping[str, int]) -> Run:
  model = decoder.DecoderConfig(**vars(_DECODER) | {'num_labels': 1})
  # It is given ids, and needs no tokenizer.
  scorer = reader.Reader(model, _params(model), None, _BATCH_TOKENS)
  k = sizes['k']
  prefixes = _ids(sizes['prompts'], sizes['prompt_tokens'])
  suffixes = _ids(sizes['prompts'] * k, sizes['response_tokens'])
  groups = [
    reader.Group(prefix, suffixes[n * k : (n + 1) * k])
    for n, prefix in enumerate(prefixes)
  ]

  def run() -> None:
    for _ in range(sizes['arms']):
      scorer.score(groups, lambda n, positions: None)

  return run


def _embed(sizes: Mapping[str, int]) -> Run:
  # A word is a token, and there are two around a text.
  text = 'word ' * (sizes['prompt_tokens'] - 2)
  return lambda: _encoder().embed([text] * sizes['prompts'])


def _fit(sizes: Mapping[str, int]) -> Run:
  rng = np.random.default_rng(0)
  emb_NE = rng.normal(size=(sizes['prompts'], sizes['width']))
  reward_NM = rng.normal(size=(sizes['prompts'], sizes['arms']))
  return lambda: ridge.fit(emb_NE, reward_NM, ridge.RidgeConfig())


def _route(sizes: Mapping[str, int]) -> Run:
  rng = np.random.default_rng(0)
  score_NM = rng.normal(size=(sizes['prompts'], sizes['arms']))
  cost_M = rng.uniform(1, 9, size=sizes['arms'])
  return lambda: path.trace(score_NM, cost_M).accumulate(score_NM)


WORKS: dict[str, Callable[[Mapping[str, int]], Run]] = {
  'sample': _sample,
  'score': _score,
  'embed': _embed,
  'fit': _fit,
  'route': _route,
}


@functools.cache
def _params(model: decoder.DecoderConfig):
  """Random float32 weights, on the mesh if there is one."""
  weights = decoder_weights.declare(model)
  params = params_lib.init(weights, jax.random.key(0), jnp.float32)
  mesh = jax.sharding.get_mesh()
  if mesh.empty:
    return params
  return jax.device_put(params, params_lib.shardings(weights, mesh))


@functools.cache
def _encoder() -> embedder.Embedder:
  return embedder.load(embedder.EmbedConfig())


def _ids(num: int, length: int) -> list[list[int]]:
  rng = np.random.default_rng(0)
  return rng.integers(_DECODER.vocab_size, size=(num, length)).tolist()
