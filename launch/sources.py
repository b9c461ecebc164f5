"""Records that a config names: of its run, of a simulation, of replays."""

import dataclasses

import numpy as np
from etils import epath

from erp_jax.core import config, errors, store, upstream
from erp_jax.data import arms as arms_lib
from erp_jax.data import (
  assets,
  embeddings,
  outcomes,
  paretobandit,
  prompts,
  simulate,
)
from erp_jax.embed import stage as embed_stage
from erp_jax.probe import records, rewards
from erp_jax.route import costs


def load(cfg, workdir):
  """Records of the live part, if there is one, and of every replay."""
  live = {
    'run': lambda *found: [from_run(*found)],
    'simulated': _simulated,
    'recorded': lambda *_: [],
  }[cfg.experiments.origin]
  found = live(cfg, workdir)
  homes = {}
  for name, one in cfg.replays.items():
    folder = dataclasses.replace(workdir, path=workdir.path / 'replay' / name)
    table, emb_NE, source = recorded(folder, one, cfg.embed, homes)
    found.append(
      records.from_outcomes(
        *(name, one.title or name, table, emb_NE),
        *(store.digest(source), one.cost_unit),
      )
    )
  if not found:
    raise errors.UserError(
      "config.experiments.origin is 'recorded', but config.replays names none."
    )
  return found


def recorded(workdir, one, embed, homes=None):
  """(table, its embeddings, what identifies both) of a RecordedOutcomes.

  Embeddings are made in this work folder, or in that of an earlier table of the
  same prompts: `homes` keeps whose is where.
  """
  path = one.outcomes
  if path.startswith('package:'):
    path = workdir.path / 'outcomes.parquet'
    folder = assets.fetch(one.outcomes.removeprefix('package:'))
    rows = paretobandit.long_table(folder)
    store.write_bytes(path, store.parquet_bytes(rows))
    content = store.digest(rows.to_pylist())
  else:
    content = ''
  table = outcomes.load(
    *(path, one.models, one.category_column),
    *(one.costs, one.categories),
  )
  content = content or store.sha256(epath.Path(path))
  asked = [
    prompts.Prompt(*row)
    for row in zip(
      table.prompt_ids, table.prompts, table.category_N.tolist(), strict=True
    )
  ]
  home = {} if homes is None else homes
  workdir = home.setdefault(prompts.text_digest(asked), workdir)
  embed_stage.run(workdir, asked, embed)
  folder = workdir.path / embed_stage.folder(embed)
  source = config.as_plain(one) | {
    'outcomes': content,
    'title': '',
    'cost_unit': '',
    'embeddings': store.read_manifest(folder)['digest'],
  }
  return table, embeddings.read(folder, table.prompt_ids), source


def _simulated(cfg, workdir):
  del workdir
  drawn = simulate.draw(
    cfg.experiments.simulation,
    arms=tuple(cfg.arms),
    rewards=tuple(cfg.rewards),
  )
  digest = store.digest(
    [config.as_plain(cfg.experiments.simulation), [*cfg.arms], [*cfg.rewards]]
  )
  title = 'Simulated rewards, shaped like the paper’s'
  return [records.from_simulation('simulated', title, drawn, digest)]


def from_run(cfg, workdir):
  """Records of the run's own arms and reward models."""
  loaded = prompts.load(cfg.prompts)
  prompt_ids = tuple(p.id for p in loaded)
  folder = workdir.path / embed_stage.folder(cfg.embed)
  made_with = {'prompts': prompts.digest(loaded)}
  for reward, reward_cfg in cfg.rewards.items():
    for arm in cfg.arms:
      scored = workdir.path / rewards.folder(reward, arm)
      store.check_made_with(scored, made_with | {'reward': reward_cfg.fields()})
      upstream.check_current(scored, workdir.path / 'responses' / arm)
  store.check_made_with(folder, {'prompts': prompts.text_digest(loaded)})
  cfg_cost, arms = cfg.route.cost, tuple(cfg.arms)
  samples = rewards.read_samples(
    workdir.path, tuple(cfg.rewards), arms, prompt_ids, cfg.experiments.reader
  )
  made = {
    'embeddings': store.read_manifest(folder)['digest'],
    'reader': config.as_plain(cfg.experiments.reader),
    'cost': config.as_plain(cfg_cost),
    'arms': {
      arm: [
        *(getattr(cfg.arms[arm], price) for price in arms_lib.PRICES),
        *(
          upstream.digest(workdir.path / rewards.folder(reward, arm))
          for reward in cfg.rewards
        ),
      ]
      for arm in arms
    },
  }
  return records.Records(
    name='run',
    title='This run',
    origin=records.RUN,
    prompt_ids=prompt_ids,
    category_N=np.array([p.category for p in loaded]),
    arms=arms,
    emb_NE=embeddings.read(folder, prompt_ids),
    reward_NKM=samples.reward_NKM,
    cost_NM=costs.read(workdir.path, cfg.arms, prompt_ids, cfg_cost),
    cost_source='recorded' if cfg_cost.kind in costs.PER_ANSWER else 'given',
    cost_unit=costs.UNITS[cfg_cost.kind],
    flag_NKM=samples.flag_NKM,
    counts={'prompts': len(loaded), **samples.counts},
    digest=store.digest(made),
  )
