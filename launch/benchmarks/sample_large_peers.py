"""transformers' generate on random weights of a large network."""

import numpy as np

from launch.benchmarks import contest, hf_folder, sample_large_ours


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
  rows = sample_large_ours.prompts(work, shape.config.vocab_size)
  limit_NK = sample_large_ours.lengths(work)[1]
  longest = max(map(len, rows))

  def run() -> contest.Work:
    slots = 0
    for start in range(0, len(rows), work.peer_prompts):
      batch = rows[start : start + work.peer_prompts]
      # One shape for all batches: a static cache is compiled for it.
      ids = torch.zeros((len(batch), longest), dtype=torch.long)
      seen = torch.zeros_like(ids)
      for i, row in enumerate(batch):
        ids[i, longest - len(row) :] = torch.tensor(row)
        seen[i, longest - len(row) :] = 1
      with torch.inference_mode():
        out = model.generate(
          ids.to(device),
          attention_mask=seen.to(device),
          do_sample=True,
          temperature=1.0,
          top_k=0,
          top_p=1.0,
          num_return_sequences=work.k,
          max_new_tokens=int(limit_NK[start : start + len(batch)].max()),
          cache_implementation='static',
          pad_token_id=0,
        )
      slots += out[:, longest:].numel()
    tokens = int(np.sum(limit_NK))
    return contest.Work(tokens, detail={'busy': tokens / slots})

  return run
