"""A whole pipeline on checkpoints that load in no time."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers, processors

from erp_jax.core import checkpoint

_ROOT = pathlib.Path(__file__).parents[1]
_CHAT = (
  "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content']"
  " + '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}"
  "{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


# Identical after any interruption; manifests, orbax folders, pages and figures
# are not promised.
_PROMISED = (
  *('*.parquet', 'metrics.json', 'intervals.json', 'about.json'),
  'router.safetensors',
)


# What makes a simulation one of seconds.
SIMULATION = {
  'simulation.width': 24,
  'simulation.prompts_per_category': 15,
  'simulation.k': 4,
  'test_prompts_per_category': 30,
  'learning.num_prompts': '(20,40)',
  'learning.num_samples': '(2,4)',
  'learning.repeats': 1,
}


@dataclasses.dataclass(frozen=True)
class Tiny:
  """Paths of a tiny decoder, encoder, prompt file and table of outcomes."""

  decoder: pathlib.Path
  encoder: pathlib.Path
  prompts: pathlib.Path
  outcomes: pathlib.Path

  def flags(self, workdir: pathlib.Path) -> list[str]:
    """Flags that turn the quickstart's config into one of seconds."""
    settings = {
      'prompts.path': self.prompts,
      'prompts.limit_per_category': 0,
      'sample.k': 3,
      'sample.max_new_tokens': 12,
      'sample.shard_prompts': 4,
      'sample.engine.slots': 12,
      'sample.engine.prompt_buckets': '(128,512)',
      'embed.encoder': self.encoder,
      'embed.max_tokens': 64,
      'route.bootstrap.num_draws': 200,
      'replay.bootstrap.num_draws': 200,
      'replay.splits': 2,
      'replays.paretobandit.outcomes': self.outcomes,
      'replays.paretobandit.models': "('small','large')",
    }
    for arm in ('terse', 'steps'):
      settings[f'arms.{arm}.model'] = self.decoder
    for reward in ('relevance', 'judge'):
      settings[f'rewards.{reward}.model'] = self.decoder
      settings[f'rewards.{reward}.shard_prompts'] = 4
    return [
      '--config=configs/quickstart.py',
      f'--workdir={workdir}',
      *(f'--config.{name}={value}' for name, value in settings.items()),
    ]


def promised(workdir: pathlib.Path) -> dict[str, str]:
  """Digests of what a run must leave, by name; of weights by content."""
  files = [file for pattern in _PROMISED for file in workdir.rglob(pattern)]
  return {
    str(file.relative_to(workdir)): hashlib.sha256(
      file.read_bytes()
    ).hexdigest()
    for file in files
    if 'weights' not in file.parts
  } | {
    str(folder.relative_to(workdir)): checkpoint.content_digest(
      checkpoint.load(folder)
    )
    for folder in (workdir / 'probes').rglob('weights')
  }


def command(binary: str, *flags: str) -> list[str]:
  """The command line of a binary."""
  return [sys.executable, '-m', f'launch.{binary}', *flags]


@pytest.fixture(scope='session')
def launch():
  """Runs a binary to its end: returns the completed process."""

  def run(binary: str, *flags: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
      command(binary, *flags),
      cwd=_ROOT,
      env=os.environ | env,
      capture_output=True,
      text=True,
    )

  return run


@pytest.fixture
def start():
  """Starts a binary in the background: returns the process.

  What still runs when the test ends, also by an error, is killed.
  """
  with contextlib.ExitStack() as stack:

    def popen(binary: str, *flags: str) -> subprocess.Popen:
      process = stack.enter_context(
        subprocess.Popen(
          command(binary, *flags),
          cwd=_ROOT,
          stdout=subprocess.DEVNULL,
          stderr=subprocess.DEVNULL,
        )
      )
      stack.callback(process.kill)
      return process

    yield popen


@pytest.fixture(scope='session')
def tiny(tmp_path_factory) -> Tiny:
  root = tmp_path_factory.mktemp('tiny')
  _save_decoder(root / 'decoder')
  _save_encoder(root / 'encoder')
  _save_prompts(root / 'prompts.jsonl')
  _save_outcomes(root / 'outcomes.parquet')
  return Tiny(
    *(root / n for n in ('decoder', 'encoder', 'prompts.jsonl')),
    root / 'outcomes.parquet',
  )


def _save_decoder(folder: pathlib.Path) -> None:
  """A random Llama over bytes, and the words Yes and No."""
  letters = sorted(pre_tokenizers.ByteLevel.alphabet())
  special = ['<|im_start|>', '<|im_end|>']
  merges = [('Y', 'e'), ('Ye', 's'), ('N', 'o')]
  vocab = [*special, *letters, *(a + b for a, b in merges)]
  tokenizer = tokenizers.Tokenizer(
    models.BPE({token: i for i, token in enumerate(vocab)}, merges)
  )
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  tokenizer.add_special_tokens(special)
  fast = transformers.PreTrainedTokenizerFast(
    tokenizer_object=tokenizer, eos_token='<|im_end|>'
  )
  fast.chat_template = _CHAT
  fast.save_pretrained(folder)
  torch.manual_seed(0)
  config = transformers.LlamaConfig(
    vocab_size=len(vocab),
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=1024,
    bos_token_id=0,
    eos_token_id=[1, *range(40, 60)],
  )
  model = transformers.LlamaForCausalLM(config)
  with torch.no_grad():
    model.lm_head.weight *= 30  # As sharp as a real model.
  model.save_pretrained(folder)


def _save_encoder(folder: pathlib.Path) -> None:
  """A random BERT with a tokenizer of letters."""
  vocab = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
  vocab += [
    p + c for c in 'abcdefghijklmnopqrstuvwxyz0123456789' for p in ('', '##')
  ]
  tokenizer = tokenizers.Tokenizer(
    models.WordPiece({t: i for i, t in enumerate(vocab)}, unk_token='[UNK]')
  )
  tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
  tokenizer.post_processor = processors.TemplateProcessing(
    single='[CLS] $A [SEP]', special_tokens=[('[CLS]', 2), ('[SEP]', 3)]
  )
  transformers.PreTrainedTokenizerFast(
    tokenizer_object=tokenizer, pad_token='[PAD]', unk_token='[UNK]'
  ).save_pretrained(folder)
  torch.manual_seed(1)
  config = transformers.BertConfig(
    vocab_size=len(vocab),
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=64,
  )
  transformers.BertModel(config).save_pretrained(folder)


def _save_prompts(path: pathlib.Path) -> None:
  rng = np.random.default_rng(0)
  rows = [
    {
      'id': f'{category}-{i:02d}',
      'prompt': f'What is {a} plus {b} in {category}?',
      'category': category,
      'checks': {'kind': 'constraints', 'all': [{'kind': 'words', 'min': 2}]},
    }
    for category in ('math', 'chat')
    for i, (a, b) in enumerate(rng.integers(0, 99, (6, 2)).tolist())
  ]
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))


def _save_outcomes(path: pathlib.Path) -> None:
  rng = np.random.default_rng(1)
  rows = [
    {
      'prompt_id': f'q{i}',
      'prompt': f'question {i} about {"abc"[i % 3]}',
      'category': f'c{i % 2}',
      'model': model,
      'reward': float(rng.random() < 0.4 + 0.3 * (model == 'large')),
      'n_samples': 1,
      'reward_kind': 'correct01',
      'cost_usd': float(cost * rng.uniform(0.5, 1.5)),
    }
    for i in range(60)
    for model, cost in (('small', 1.0), ('large', 5.0))
  ]
  pq.write_table(pa.Table.from_pylist(rows), path)
