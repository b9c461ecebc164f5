"""transformers' sequence classification on the scoring workload's ids."""

import pathlib
import tempfile

import numpy as np

from erp_jax.models import deberta
from erp_jax.models import params as params_lib
from erp_jax.score import pairs
from launch.benchmarks import contest, hf_folder, score_ours


def decoder_bfloat16(work):
  """SmolLM2 with the same head, in bfloat16."""
  import torch
  import transformers

  scorer = score_ours.decoder_scorer(work)
  prompts, responses = score_ours.texts(
    work, work.decoder, scorer.reader.tokenizer
  )
  groups = scorer.groups(prompts, responses)
  rows = [[*prefix, *ids] for prefix, suffixes in groups for ids in suffixes]
  head = np.float32(scorer.reader.params['score_JD'])
  del scorer
  with tempfile.TemporaryDirectory() as folder:
    hf_folder.write(score_ours.SMOLLM2, pathlib.Path(folder), 'bfloat16')
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
      folder, num_labels=1, pad_token_id=0, dtype=torch.bfloat16
    )
  model.score.weight.data.copy_(torch.tensor(head))
  return _reader(model, rows, work.decoder.peer_rows)


def deberta_float32(work):
  """The same random network."""
  return _deberta(work, 'float32')


def deberta_bfloat16(work):
  """The same, though its rewards then differ as responses' do."""
  return _deberta(work, 'bfloat16')


def _deberta(work, dtype):
  import torch
  import transformers

  scorer = score_ours.deberta_scorer(work)
  prompts, responses = score_ours.texts(work, work.deberta, scorer.tokenizer)
  rows, _ = pairs.encode(scorer.tokenizer, prompts, responses, 512)
  config = transformers.DebertaV2Config(
    vocab_size=scorer.cfg.vocab_size,
    hidden_size=scorer.cfg.width,
    num_hidden_layers=scorer.cfg.num_layers,
    num_attention_heads=scorer.cfg.heads,
    intermediate_size=scorer.cfg.mlp,
    max_position_embeddings=scorer.cfg.max_distance,
    layer_norm_eps=scorer.cfg.norm_eps,
    position_buckets=scorer.cfg.buckets,
    relative_attention=True,
    share_att_key=True,
    pos_att_type=['p2c', 'c2p'],
    norm_rel_ebd='layer_norm',
    position_biased_input=False,
    type_vocab_size=0,
    num_labels=1,
  )
  model = transformers.DebertaV2ForSequenceClassification(config)
  named = params_lib.to_tensors(deberta.weights(scorer.cfg), scorer.params)
  model.load_state_dict({k: torch.from_numpy(v) for k, v in named})
  return _reader(model.to(getattr(torch, dtype)), rows, work.deberta.peer_rows)


def _reader(model, rows, num_rows):
  """Rows sorted by length, padded on the right to the longest of a batch."""
  import torch

  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  model = model.eval().to(device)
  order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
  chunks = [order[i : i + num_rows] for i in range(0, len(order), num_rows)]

  def run() -> contest.Work:
    rewards = np.empty(len(rows), np.float32)
    for chunk in chunks:
      size = max(len(rows[i]) for i in chunk)
      ids = torch.zeros((len(chunk), size), dtype=torch.long)
      valid = torch.zeros_like(ids)
      for b, i in enumerate(chunk):
        ids[b, : len(rows[i])] = torch.tensor(rows[i])
        valid[b, : len(rows[i])] = 1
      with torch.inference_mode():
        out = model(ids.to(device), attention_mask=valid.to(device))
      rewards[chunk] = out.logits[:, 0].float().cpu().numpy()
    return contest.Work(len(rows), detail=score_ours.detail(rows, rewards))

  return run
