r"""Preference pairs: two responses to a prompt, and which one people chose.

A row of the JSONL file (.jsonl, or .jsonl.gz) has `prompt`, `chosen` and
`rejected`. Without `prompt`, both others are whole dialogues of '\n\nHuman: …'
and '\n\nAssistant: …' turns, as anthropics/hh-rlhf publishes them: then the
prompt is what comes before the last answer.
"""

import collections
import dataclasses
import gzip
import hashlib
import json
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from erp_jax.core import errors, store
from erp_jax.data import splits

_HUMAN, _ASSISTANT = '\n\nHuman:', '\n\nAssistant:'
_Z = 1.959964  # The normal's 97.5 % point.
_MIN_PROMPTS = 4  # Two to hold out and train on, and two again to validate.

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairsConfig:
  """Which pairs, and which of them are for testing alone."""

  path: str = ''
  limit: int = 0  # Pairs kept, picked by a hash of the pair; 0 is all.
  held_out_frac: float = 0.2  # Of the prompts.
  split_seed: int = 0

  def __post_init__(self):
    if not self.path:
      raise errors.UserError(
        'pairs.path is empty: give a JSONL file with prompt, chosen, rejected.'
      )
    if self.limit < 0 or not 0 < self.held_out_frac < 1:
      raise errors.UserError(
        'pairs needs limit >= 0 and 0 < held_out_frac < 1, got '
        f'{self.limit} and {self.held_out_frac}.'
      )


@dataclasses.dataclass(frozen=True)
class Pair:
  """`chosen` was preferred over `rejected`."""

  prompt: str
  chosen: str
  rejected: str


def load(cfg: PairsConfig) -> tuple[Pair, ...]:
  """The pairs of a file, in an order that does not depend on the file's.

  Repeated pairs count once. Rows that compare nothing (equal responses, or
  dialogues that part before the last answer) are left out, with a warning.
  Raises UserError for a file that is missing or not JSONL, a row without its
  texts, and fewer than four prompts.
  """
  kept = set()
  skipped = collections.Counter()
  for where, row in _rows(epath.Path(cfg.path)):
    pair = _read_row(row, where)
    if pair.chosen.strip() == pair.rejected.strip():
      skipped['have equal responses'] += 1
    elif not pair.prompt:
      skipped['part before the last answer'] += 1
    else:
      kept.add(pair)
  for why, count in skipped.items():
    _log.warning('%s: left out %d rows that %s.', cfg.path, count, why)
  # By a hash, so that the limit takes from everywhere.
  pairs = sorted(kept, key=_key)[: cfg.limit or None]
  num_prompts = len({pair.prompt for pair in pairs})
  if num_prompts < _MIN_PROMPTS:
    raise errors.UserError(
      f'{cfg.path} holds usable pairs of {num_prompts} prompts, at least '
      f'{_MIN_PROMPTS} are needed: add rows with prompt, chosen and rejected.'
    )
  return tuple(pairs)


def digest(pairs: Sequence[Pair]) -> str:
  """Hex sha256 of the texts."""
  return store.digest([dataclasses.astuple(pair) for pair in pairs])


def train_mask(
  prompts: Sequence[str], seed: int, held_out_frac: float
) -> np.ndarray:
  """train_I of the pairs of these prompts: all pairs of a prompt on one side.

  I is the axis of pairs.
  """
  unique = sorted(set(prompts))
  is_train = splits.train_mask(
    unique, [''] * len(unique), seed, 1 - held_out_frac
  )
  side = dict(zip(unique, is_train, strict=True))
  return np.array([side[prompt] for prompt in prompts])


def split_dialogue(dialogue: str) -> tuple[str, str]:
  """What comes before the last answer, and that answer.

  A dialogue of one question becomes the question alone.
  """
  before, _, answer = dialogue.rpartition(_ASSISTANT)
  if before.startswith(_HUMAN) and before.count('\n\n') == 1:
    before = before.removeprefix(_HUMAN)
  return before.strip(), answer.strip()


def accuracy(margin_I: np.ndarray, prompts: Sequence[str]) -> dict[str, Any]:
  """Share of pairs whose margin r(chosen) − r(rejected) is > 0; ties are half.

  `lo` and `hi` are its 95 % interval by Wilson's formula, which holds near 0
  and 1 too, for as many independent pairs as tell as much: those of one prompt
  agree more than chance has it. `effective_pairs` is their number divided by
  the design effect (Kish 1965), at most their number; where no pair or every
  pair is right nothing shows it, and it is the number of prompts.
  """
  right_I = (margin_I > 0) + 0.5 * (margin_I == 0)
  share = float(right_I.mean())
  _, prompt_I = np.unique(prompts, return_inverse=True)
  num_N = np.bincount(prompt_I)
  num_pairs, num_prompts = len(right_I), len(num_N)
  effective = float(num_prompts)
  if num_prompts < num_pairs and 0 < share < 1:
    # Variance of a ratio of sums over prompts, which are what is drawn.
    excess_N = np.bincount(prompt_I, right_I) - share * num_N
    variance = (excess_N**2).sum() / num_pairs**2
    variance *= num_prompts / (num_prompts - 1)
    effective = float(min(share * (1 - share) / variance, num_pairs))
  lo, hi = _wilson(share, effective)
  return {
    'accuracy': share,
    'lo': lo,
    'hi': hi,
    'pairs': num_pairs,
    'prompts': num_prompts,
    'effective_pairs': effective,
    'ties': int((margin_I == 0).sum()),
  }


def _wilson(share: float, num: float) -> tuple[float, float]:
  """Wilson's score interval of a share of `num` independent trials."""
  z2 = _Z * _Z
  centre = (share + z2 / (2 * num)) / (1 + z2 / num)
  half = math.sqrt(share * (1 - share) / num + z2 / (4 * num * num))
  half *= _Z / (1 + z2 / num)
  return max(centre - half, 0.0), min(centre + half, 1.0)


def _read_row(row: Any, where: str) -> Pair:
  """A Pair, without a prompt where two dialogues have not the same."""
  if not isinstance(row, dict):
    raise errors.UserError(f'{where} is {row!r}, but must be an object.')
  for name in ('chosen', 'rejected', *(['prompt'] if 'prompt' in row else [])):
    if not isinstance(row.get(name), str) or not row[name].strip():
      raise errors.UserError(
        f'{where}: {name} is {row.get(name)!r}, but must be a text: give each '
        'row prompt, chosen and rejected.'
      )
  if 'prompt' in row:
    return Pair(row['prompt'], row['chosen'], row['rejected'])
  if not all(_ASSISTANT in row[name] for name in ('chosen', 'rejected')):
    raise errors.UserError(
      f'{where} has no prompt and is no pair of dialogues with {_ASSISTANT!r} '
      'turns: add the field prompt.'
    )
  prompt, chosen = split_dialogue(row['chosen'])
  other, rejected = split_dialogue(row['rejected'])
  return Pair(prompt if prompt == other else '', chosen, rejected)


def _rows(path: epath.Path) -> Iterator[tuple[str, Any]]:
  """(where it stands, value) of each line."""
  try:
    data = path.read_bytes()
    if path.suffix == '.gz':
      data = gzip.decompress(data)
    lines = data.decode().splitlines()
  except (OSError, EOFError, UnicodeDecodeError) as error:
    raise errors.UserError(
      f'pairs.path is {str(path)!r}, which cannot be read ({error}): give a '
      'JSONL file with prompt, chosen, rejected.'
    ) from error
  for number, line in enumerate(lines, 1):
    if line.strip():
      try:
        value = json.loads(line)
      except ValueError as error:
        raise errors.UserError(
          f'{path} line {number} is not JSON ({error}).'
        ) from error
      yield f'{path} line {number}', value


def _key(pair: Pair) -> bytes:
  return hashlib.sha256(repr(dataclasses.astuple(pair)).encode()).digest()
