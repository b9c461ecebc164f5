"""Prompts in, arms out: the encoder that a policy was fitted on, before it."""

import dataclasses
from collections.abc import Sequence
from typing import Self

import numpy as np
from etils import epath

from erp_jax.core import config, errors
from erp_jax.embed import embedder as embedder_lib
from erp_jax.models import checkpoint
from erp_jax.route import artifact
from erp_jax.route import policy as policy_lib


@dataclasses.dataclass(frozen=True)
class Router:
  """A policy and its encoder.

  After `launch.export_router`:

    from erp_jax import serve
    router = serve.Router.load('runs/mine/router/verify')
    router.warm_up()                # Else the first requests wait for it.
    decision = router.route(['What is 17 + 25?', 'Write a haiku.'], budget=0.75)
    decision.arm_N                  # ['terse', 'steps']
    decision.reward_NM, decision.std_NM, decision.win_NM, decision.ood_N
  """

  policy: policy_lib.Policy
  embedder: embedder_lib.Embedder

  @classmethod
  def load(cls, path: epath.PathLike, encoder: str = '') -> Self:
    """The router in the folder that `launch.export_router` wrote.

    Args:
      path: the folder.
      encoder: where the encoder's checkpoint is, if not where it was: a hub id,
        a folder, or package:NAME.

    Raises UserError as `artifact.load`, and for an encoder of another revision
    than the policy was fitted on.
    """
    saved = artifact.load(path)
    cfg = config.build(
      embedder_lib.EmbedConfig, saved.encoder['embed'], 'embed'
    )
    if encoder:
      cfg = dataclasses.replace(cfg, encoder=encoder)
    artifact.check_encoder(
      saved,
      {
        'embed': config.as_plain(cfg),
        'revision': checkpoint.open_checkpoint(cfg.encoder).revision,
      },
    )
    return cls(saved.policy, embedder_lib.load(cfg))

  def route(
    self,
    prompts: Sequence[str],
    *,
    budget: float | None = None,
    lam: float | None = None,
    ids: Sequence[str] = (),
  ) -> policy_lib.Decision:
    """Arms for prompts, at a price or within a budget: give exactly one.

    Args:
      budget, lam: as in `Policy.decide`.
      ids: a budget's lotteries are drawn from the hashes of the ids; without,
        of the prompts, so that a prompt always gets the same arm.

    Raises UserError as `Policy.decide`, and for a prompt that is no text.
    """
    ids = ids or prompts
    if len(ids) != len(prompts):
      raise ValueError(f'{len(ids)} ids, {len(prompts)} prompts.')
    for name, prompt in zip(ids, prompts, strict=True):
      if not isinstance(prompt, str) or not prompt.strip():
        raise errors.UserError(
          f'prompt {name!r} is {prompt!r}; give a text that is not empty.'
        )
    self.policy.check(budget=budget, lam=lam)  # Before the slow part.
    emb_NE = self.embedder.embed(prompts).emb_NE
    return self.policy.decide(
      emb_NE, budget=budget, lam=lam, prompt_ids=list(ids)
    )

  def warm_up(self) -> None:
    """Compiles and derives all that `route` needs: no request waits for it."""
    self.embedder.warm_up()
    self.policy.decide(np.ones((1, self.embedder.width), np.float32), lam=0.0)
