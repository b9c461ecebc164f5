"""Documents: tables and figures as files, and marks of what is simulated."""

import csv
import io
import math

import pytest

from erp_jax.report import cells, document, figures, words


def _table(kind='t'):
  return cells.Table(
    kind,
    'A title | with a bar',
    ['Policy', 'Regret', 'Cost'],
    [
      [
        cells.Cell('erp'),
        cells.number(0.12345678, 0.1, 0.2, note='split 1'),
        cells.Cell('–'),
      ],
      [cells.Cell('zooter'), cells.Cell('–'), cells.number(2.5)],
    ],
  )


def _figure(name='f'):
  figure = figures.new(3, 2)
  figure.subplots().plot([0, 1], [0, 1])
  return document.Figure(name, figure, 'A line.')


def _document(origin='recorded', **fields):
  section = {'tables': [_table()], 'figures': [_figure()]} | fields
  inner = document.Section(title='Inner', origin=origin, **section)
  return document.Document(
    title='Page & title',
    lead=['What it is.', 'More.'],
    sections=[document.Section(title='Outer', sections=[inner])],
    links={'Other': '../other/report.html'},
  )


def test_every_table_and_figure_is_a_file_and_on_the_page():
  files = document.files(_document())
  assert sorted(files) == [
    'figures/f.pdf', 'figures/f.png', 'report.html', 'tables/t.csv',
    'tables/t.md',
  ]  # fmt: skip
  assert files['figures/f.png'].startswith(b'\x89PNG')
  assert files['figures/f.pdf'].startswith(b'%PDF')
  page = files['report.html'].decode()
  for text in ('Page &amp; title', 'A title | with a bar', 'A line.', 'Inner'):
    assert text in page
  assert '<a href="../other/report.html">Other</a>' in page
  assert 'SIMULATED' not in page
  assert page.count('<img src="data:image/png;base64,') == 1


def test_equal_documents_give_equal_bytes():
  assert document.files(_document()) == document.files(_document())


def test_what_is_simulated_is_marked_on_page_table_and_figure():
  plain = document.files(_document())
  marked = document.files(_document(origin='simulated'))
  assert b'<p class="banner">SIMULATED' in marked['report.html']
  assert b'class="origin simulated"' in marked['report.html']
  assert marked['tables/t.md'].endswith(b'Simulated rewards.\n')
  assert marked['figures/f.png'] != plain['figures/f.png']


def test_what_is_below_a_simulated_section_is_marked_too():
  child = document.Section(
    title='Part', tables=[_table('c')], figures=[_figure('c')]
  )
  both = {
    origin: document.files(
      document.Document(
        title='Study',
        lead=['Why.'],
        sections=[
          document.Section(title='All', origin=origin, sections=[child])
        ],
      )
    )
    for origin in ('simulated', 'recorded')
  }
  assert b'Simulated rewards.' in both['simulated']['tables/c.md']
  assert b'Simulated' not in both['recorded']['tables/c.md']
  assert both['simulated']['report.html'].count(b'class="origin sim') == 2
  figure = 'figures/c.png'
  assert both['simulated'][figure] != both['recorded'][figure]


def test_csv_has_numbers_in_full_and_intervals_apart():
  text = document.files(_document())['tables/t.csv'].decode()
  rows = list(csv.DictReader(io.StringIO(text)))
  assert float(rows[0]['Regret']) == 0.12345678
  assert float(rows[0]['Regret, low']) == 0.1
  assert float(rows[0]['Regret, high']) == 0.2
  assert rows[0]['Cost'] == '' and rows[1]['Regret'] == ''
  assert rows[1]['Regret, low'] == ''
  assert float(rows[1]['Cost']) == 2.5


def test_markdown_keeps_to_its_columns():
  lines = cells.markdown(_table()).splitlines()
  assert lines[0] == r'A title \| with a bar'
  assert lines[2:4] == ['| Policy | Regret | Cost |', '| --- | ---: | ---: |']
  assert lines[4] == '| erp | 0.123 [0.100, 0.200]; split 1 | – |'


def test_a_leaf_without_a_value_is_a_dash():
  assert cells.leaf({'mean': None, 'lo': None, 'hi': None}).text == '–'
  cell = cells.leaf({'mean': 0.5, 'lo': None, 'hi': None})
  assert cell.text == '0.500' and cell.note == '' and math.isnan(cell.lo)


def test_names_are_not_used_twice():
  with pytest.raises(ValueError, match='tables/t.md'):
    document.files(_document(tables=[_table(), _table()]))


def test_a_line_of_the_page_never_begins_with_a_per_cent_sign():
  cell = cells.number(0.5, 0.25, 0.75, words.share)
  table = cells.Table(
    't', 'Shares', ['Arm', 'Share'], [[cells.Cell('a'), cell]]
  )
  page = document.files(_document(tables=[table]))['report.html'].decode()
  assert '>[25.0\u00a0%, 75.0\u00a0%]<' in page
