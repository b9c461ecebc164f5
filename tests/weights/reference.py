"""What transformers computes of a GGUF file: logits and greedy continuations.

A program of its own, so that its memory is free before ours is needed:
python reference.py FILE.gguf IDS.json OUT.npz NUM_STEPS NUM_POSITIONS
"""

import json
import pathlib
import sys

import numpy as np
import torch
import transformers


def main(file, ids_file, out_file, num_steps, num_positions):
  path = pathlib.Path(file)
  model = transformers.AutoModelForCausalLM.from_pretrained(
    path.parent,
    gguf_file=path.name,
    dtype=torch.float32,
    attn_implementation='eager',
  )
  model.eval().requires_grad_(False)
  out = {}
  for n, ids in enumerate(json.loads(pathlib.Path(ids_file).read_text())):
    token = torch.tensor([ids])
    result = model(token, use_cache=True, logits_to_keep=int(num_positions))
    out[f'logits{n}'] = result.logits[0].numpy()
    chosen = []
    for _ in range(int(num_steps)):
      chosen.append(int(result.logits[0, -1].argmax()))
      result = model(
        torch.tensor([chosen[-1:]]), past_key_values=result.past_key_values
      )
    out[f'greedy{n}'] = np.array(chosen)
  np.savez(out_file, **out)


if __name__ == '__main__':
  main(*sys.argv[1:])
