"""What else samples: transformers' generate, and llama.cpp's server."""

import concurrent.futures
import json
import os
import pathlib
import tempfile
import urllib.request

import numpy as np

from erp_jax.models import checkpoint, tokenizer
from launch.benchmarks import contest, hf_folder, sample_ours


def transformers_sample(work):
  """K sequences a prompt, padded on the left, in bfloat16."""
  import torch
  import transformers

  path = checkpoint.open_checkpoint(work.model).path
  tokens = tokenizer.load_tokenizer(path)
  rows = [ids for _, ids in sample_ours.prompts(work, tokens)]
  stop_ids = list(tokens.stop_ids)
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  with tempfile.TemporaryDirectory() as folder:
    hf_folder.write(work.model, pathlib.Path(folder), 'bfloat16')
    model = transformers.AutoModelForCausalLM.from_pretrained(
      folder, dtype=torch.bfloat16
    )
  model = model.eval().to(device)
  torch.manual_seed(work.seed)

  def run() -> contest.Work:
    useful = slots = 0
    for start in range(0, len(rows), work.peer_prompts):
      batch = rows[start : start + work.peer_prompts]
      new = generate(
        model,
        batch,
        max(map(len, batch)),
        num_return_sequences=work.k,
        max_new_tokens=work.max_new_tokens,
        eos_token_id=stop_ids,
        pad_token_id=stop_ids[0],
      )
      stop = np.isin(new, stop_ids)
      useful += np.where(
        stop.any(axis=1), stop.argmax(axis=1) + 1, new.shape[1]
      ).sum()
      slots += new.size
    return contest.Work(int(useful), detail={'busy': float(useful / slots)})

  return run


def generate(model, rows, size: int, pad_token_id: int, **options):
  """New ids of each row's samples at T = 1, as NumPy; rows padded to `size`."""
  import torch

  ids = torch.full((len(rows), size), pad_token_id)
  seen = torch.zeros_like(ids)
  for i, row in enumerate(rows):
    ids[i, size - len(row) :] = torch.tensor(row)
    seen[i, size - len(row) :] = 1
  with torch.inference_mode():
    out = model.generate(
      ids.to(model.device),
      attention_mask=seen.to(model.device),
      do_sample=True,
      temperature=1.0,
      top_k=0,
      top_p=1.0,
      pad_token_id=pad_token_id,
      **options,
    )
  return out[:, size:].cpu().numpy()


def llama_packed(work):
  """llama.cpp on the checkpoint's own file."""
  return _llama(work, checkpoint.open_checkpoint(work.model).path)


def llama_bfloat16(work):
  """llama.cpp on the checkpoint's weights as bfloat16."""
  return _llama_of(work, 'BF16')


def llama_q4_0(work):
  """llama.cpp on them in the four bits that its CPU kernels are fastest for."""
  return _llama_of(work, 'Q4_0')


def _llama_of(work, kind: str):
  file = pathlib.Path(tempfile.mkdtemp()) / f'{kind}.gguf'
  hf_folder.write_gguf(checkpoint.open_checkpoint(work.model).path, file, kind)
  return _llama(work, file)


def _llama(work, file: pathlib.Path):
  """Its server, with as many slots as it has requests at once."""
  import xllamacpp

  slots = min(work.k, work.slots)
  params = xllamacpp.CommonParams()
  params.model.path = str(file)
  params.n_parallel = slots
  params.n_ctx = slots * (work.max_prompt_tokens + work.max_new_tokens)
  params.cpuparams.n_threads = os.cpu_count()
  server = xllamacpp.Server(params)
  tokens = tokenizer.load_tokenizer(checkpoint.open_checkpoint(work.model).path)
  rows = [ids for _, ids in sample_ours.prompts(work, tokens)]

  def ask(job):
    n, k = job
    body = {
      'prompt': rows[n],
      'n_predict': work.max_new_tokens,
      'temperature': 1.0,
      'top_k': 0,
      'top_p': 1.0,
      'min_p': 0.0,
      # The others would sort the vocabulary, and then keep all of it.
      'samplers': ['temperature'],
      'seed': n * work.k + k,
      'cache_prompt': True,
    }
    # The server ends with the last name for it.
    request = urllib.request.Request(
      f'{server.listening_address}/completion',
      json.dumps(body).encode(),
      {'Content-Type': 'application/json'},
    )
    with urllib.request.urlopen(request) as reply:
      return json.load(reply)['tokens_predicted']

  def run() -> contest.Work:
    jobs = [(n, k) for n in range(len(rows)) for k in range(work.k)]
    with concurrent.futures.ThreadPoolExecutor(slots) as pool:
      return contest.Work(sum(pool.map(ask, jobs)))

  return run
