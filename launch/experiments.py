"""What the binaries of the experiments share: records in, one page out."""

import json
import logging
from typing import Any

from rich import console

from erp_jax.core import config, store
from erp_jax.report import document
from launch import sources

_log = logging.getLogger(__name__)

FORMAT_VERSION = 2
PAGES = {
  'predictability': 'Predictability (E1–E4)',
  'pairwise': 'Pairwise wins (E5, E6)',
  'winrates': 'Win rates (E7, E8)',
  'routing': 'Routing (E9–E11)',
  'learning': 'Learning curves',
}


def run(cfg, workdir, name: str, lead: list[str], build) -> None:
  """Writes experiments/{name}: report.html, tables, figures, metrics.json.

  `build(records, own config, common config)` is the experiment's. What is
  there already, of the same inputs and config, is not made again.
  """
  loaded = sources.load(cfg, workdir)
  own: Any = getattr(cfg.experiments, name)
  identity = {
    'stage': f'experiments/{name}',
    'format_version': FORMAT_VERSION,
    'common': config.as_plain(cfg.experiments.common),
    name: config.as_plain(own),
    'records': {one.name: [one.title, one.digest] for one in loaded},
  }
  publish(
    *(workdir, name, PAGES[name], lead, identity, loaded),
    lambda: build(loaded, own, cfg.experiments.common),
  )


def publish(workdir, name, title, lead, identity, loaded, make) -> None:
  """Writes the experiment.Result of `make()`, unless that identity's is there.

  `loaded` are the records that it is about.
  """
  artifact = workdir.artifact(f'experiments/{name}', identity, replaceable=True)
  if not artifact.is_done():
    result = make()
    page = document.Document(
      title=title,
      lead=lead,
      sections=result.sections,
      links={
        title: f'../{other}/{document.PAGE}'
        for other, title in PAGES.items()
        if other != name
      },
    )
    with workdir.writer(artifact) as writer:
      for file, data in document.files(page).items():
        writer.write_file(file, data)
      writer.write_file('metrics.json', store.json_bytes(result.metrics))
      writer.finish({'origins': {one.name: one.origin for one in loaded}})
  out = console.Console(soft_wrap=True, highlight=False)
  out.print(f'report: {artifact.path / document.PAGE}')


def read_metrics(workdir, name: str) -> dict[str, Any]:
  """metrics.json of an experiment that has run."""
  return json.loads(
    store.read_file(workdir.path / 'experiments' / name, 'metrics.json')
  )
