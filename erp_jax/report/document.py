"""Documents of an experiment: one HTML page, tables and figures as files.

A document is a tree of sections; `files` writes each table as Markdown and CSV,
each figure as PNG and PDF, and all of them into one page.
"""

import base64
import dataclasses
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from matplotlib import figure as figure_lib

from erp_jax.report import cells, figures, words

PAGE = 'report.html'
SIMULATED = 'simulated'
ORIGINS = {
  'run': 'rewards of this run’s own responses',
  'recorded': 'recorded outcomes of real models',
  SIMULATED: 'SIMULATED rewards: they say nothing about real models',
}


@dataclasses.dataclass(frozen=True)
class Figure:
  """A figure, the name of its files, and what it shows."""

  name: str
  figure: figure_lib.Figure
  caption: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
  """A heading, and what stands under it.

  Attributes:
    title: of the section.
    origin: a key of ORIGINS, said beneath the title; '' says nothing, but
      what is below a simulated section is simulated too.
    text: paragraphs.
    tables, figures: in this order, after the text.
    sections: below it.
  """

  title: str
  origin: str = ''
  text: Sequence[str] = ()
  tables: Sequence[cells.Table] = ()
  figures: Sequence[Figure] = ()
  sections: Sequence['Section'] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Document:
  """One experiment's page.

  Attributes:
    title: of the page.
    lead: what it is about, and how to read it.
    sections: the content.
    links: {what: href} to pages beside it.
  """

  title: str
  lead: Sequence[str]
  sections: Sequence[Section]
  links: Mapping[str, str] = dataclasses.field(default_factory=dict)

  @property
  def is_simulated(self) -> bool:
    return any(s.origin == SIMULATED for s in self.walk())

  def walk(self) -> list[Section]:
    """All sections, parents first; those below simulated ones are marked."""
    found, todo = [], list(self.sections)
    while todo:
      section = todo.pop(0)
      found.append(section)
      todo = [*_below(section), *todo]
    return found


def files(document: Document) -> dict[str, bytes]:
  """Contents by file name: the page, tables/*.{md,csv}, figures/*.{png,pdf}.

  Raises ValueError for two tables or two figures of one name.
  """
  result: dict[str, bytes] = {}
  uris: dict[str, str] = {}

  def add(name: str, data: bytes) -> None:
    if name in result:
      raise ValueError(f'two files of a document are named {name}.')
    result[name] = data

  for section in document.walk():
    mark = '' if section.origin != SIMULATED else '\nSimulated rewards.\n'
    for table in section.tables:
      add(f'tables/{table.kind}.md', (cells.markdown(table) + mark).encode())
      add(f'tables/{table.kind}.csv', cells.csv_text(table).encode())
    for figure in section.figures:
      if section.origin == SIMULATED:
        figures.stamp(figure.figure, 'simulated rewards')
      image = figures.png(figure.figure)
      uris[figure.name] = data_uri(image)
      add(f'figures/{figure.name}.png', image)
      add(f'figures/{figure.name}.pdf', _pdf(figure.figure))
  html = render(
    'document.html.j2',
    document=document,
    uris=uris,
    origins=ORIGINS,
    below=_below,
  )
  result[PAGE] = html.encode()
  return result


def data_uri(png: bytes) -> str:
  """A picture as a page holds it."""
  return f'data:image/png;base64,{base64.b64encode(png).decode()}'


def render(template: str, **context: Any) -> str:
  """The page that a template beside this module makes of the context."""
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  return environment.get_template(template).render(words=words, **context)


def _below(section: Section) -> list[Section]:
  """The sections in this one, simulated if it is."""
  if section.origin != SIMULATED:
    return list(section.sections)
  return [
    dataclasses.replace(s, origin=s.origin or SIMULATED)
    for s in section.sections
  ]


def _pdf(figure: figure_lib.Figure) -> bytes:
  sink = io.BytesIO()
  # Without a date: equal figures give equal bytes.
  figure.savefig(sink, format='pdf', metadata={'CreationDate': None})
  return sink.getvalue()
