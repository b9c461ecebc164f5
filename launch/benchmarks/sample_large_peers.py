"""transformers' generate on random weights of a large network."""

import numpy as np

from launch.benchmarks import (
  contest,
  hf_folder,
  sample_large_ours,
  sample_peers,
)


def prepare(argument):
  """K sequences a prompt, padded on the left, with a static cache.

  A batch ends when its longest response has its length.
  """
  import torch
  import transformers

  work, shape = argument
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  torch.manual_seed(work.seed)
  config = transformers.AutoConfig.for_model(**hf_folder.config(shape.config))
  with torch.device(device):
    model = transformers.AutoModelForCausalLM.from_config(
      config, dtype=torch.bfloat16
    ).eval()
  model.generation_config.eos_token_id = None
  prompt_N, limit_NK = sample_large_ours.lengths(work)
  rows = sample_large_ours.prompts(prompt_N, shape.config.vocab_size, work.seed)
  longest = max(prompt_N)

  def run() -> contest.Work:
    slots = 0
    for start in range(0, len(rows), work.peer_prompts):
      batch = rows[start : start + work.peer_prompts]
      new = sample_peers.generate(
        model,
        batch,
        longest,  # One shape for all: a static cache is compiled for it.
        num_return_sequences=work.k,
        max_new_tokens=int(limit_NK[start : start + len(batch)].max()),
        cache_implementation='static',
        pad_token_id=0,
      )
      slots += new.size
    tokens = int(np.sum(limit_NK))
    return contest.Work(tokens, detail={'busy': tokens / slots})

  return run
