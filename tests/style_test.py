"""The conventions that a parser can check, over every module there is.

Each check takes source text and returns the lines at fault, so that the tests
at the end can show it failing.
"""

import ast
import fnmatch
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

_ROOT = pathlib.Path(__file__).parents[1]
_TOP_LEVEL = {
  '.ci',
  '.github',
  '.gitignore',
  'BUILD.md',
  'LICENSE',
  'Makefile',
  'README.md',
  'configs',
  'constraints-latest.txt',
  'constraints-py311.txt',
  'erp_jax',
  'launch',
  'pyproject.toml',
  'tests',
}
# Imports go down in rank, or stay in the folder.
_RANK = {
  'erp_jax.core': 0,
  'erp_jax.data': 1,
  'erp_jax.models': 2,
  'erp_jax.sample': 3,
  'erp_jax.score': 3,
  'erp_jax.embed': 3,
  'erp_jax.probe': 4,
  'erp_jax.route': 5,
  'erp_jax.report': 6,
  'erp_jax.serve': 7,
  'launch': 8,
  'configs': 9,
}
_LIGHT_FOLDERS = ('probe', 'route', 'report')
_HEAVY = ('erp_jax.models', 'transformers', 'tokenizers')
_MAX_LINES = 400
_MAX_LINES_BINARY = 80


def _sources(*folders: str) -> Iterator[tuple[str, str]]:
  """(path from the root, text) of each module in these folders."""
  for folder in folders:
    for file in sorted((_ROOT / folder).rglob('*.py')):
      yield str(file.relative_to(_ROOT)), file.read_text()


def _our_folder(module: str) -> str:
  """The folder of a dotted name, as in _RANK; '' if it is not ours."""
  parts = module.split('.')
  if parts[0] == 'tests' or module == 'erp_jax':
    return module
  folder = '.'.join(parts[: 2 if parts[0] == 'erp_jax' else 1])
  return folder if parts[0] in ('erp_jax', 'launch', 'configs') else ''


def _imported(node: ast.AST) -> list[str]:
  """Dotted names that a statement may import; '.' for a relative import."""
  if isinstance(node, ast.Import):
    return [alias.name for alias in node.names]
  if isinstance(node, ast.ImportFrom):
    if node.level:
      return ['.']
    return [f'{node.module}.{alias.name}' for alias in node.names]
  return []


def _wrong_imports(path: str, source: str) -> list[str]:
  """Imports against the order of the folders, and relative ones."""
  here = _our_folder(path.removesuffix('.py').replace('/', '.'))
  problems = []
  for node in ast.walk(ast.parse(source)):
    for name in _imported(node):
      there = _our_folder(name)
      allowed = name != '.' and (
        not there
        or (there == here and here != 'configs')
        or (there in _RANK and here in _RANK and _RANK[there] < _RANK[here])
      )
      if not allowed:
        problems.append(f'{path}:{node.lineno}: {here} imports {name}')
  return problems


def _suffix_problem(operand: ast.expr, subscripts: str) -> bool:
  """Whether an operand has a name that does not say its subscripts.

  A name must; an attribute (`params.w`) only if it ends in axes at all; other
  expressions have no name.
  """
  if isinstance(operand, ast.Name):
    name = operand.id
  elif isinstance(operand, ast.Attribute) and re.search(
    r'_[A-Z]+$', operand.attr
  ):
    name = operand.attr
  else:
    return False
  axes = subscripts.strip().replace('...', '[A-Z]*')
  return bool(axes) and not re.search(f'_{axes}$', name)


def _wrong_einsums(path: str, source: str) -> list[str]:
  """Literal einsums whose operands, or result, are named for other axes."""
  tree = ast.parse(source)
  targets = {
    node.value: node.targets[0]
    for node in ast.walk(tree)
    if isinstance(node, ast.Assign)
  }
  problems = []
  for node in ast.walk(tree):
    if not (
      isinstance(node, ast.Call)
      and ast.unparse(node.func) in ('jnp.einsum', 'np.einsum')
      and isinstance(node.args[0], ast.Constant)
    ):
      continue
    inputs, _, output = node.args[0].value.partition('->')
    named = list(zip(node.args[1:], inputs.split(','), strict=False))
    if node in targets:
      named.append((targets[node], output))
    problems += [
      f'{path}:{node.lineno}: {ast.unparse(operand)} is used as {subscripts}'
      for operand, subscripts in named
      if _suffix_problem(operand, subscripts)
    ]
  return problems


def _too_long(path: str, source: str) -> list[str]:
  """A module, or a program, with too many lines."""
  main = "if __name__ == '__main__'"
  is_binary = path.startswith('launch/') and main in source
  limit = _MAX_LINES_BINARY if is_binary else _MAX_LINES
  num_lines = len(source.splitlines())
  if num_lines <= limit:
    return []
  return [f'{path}: {num_lines} lines, more than {limit}']


def _wrong_calls(path: str, source: str) -> list[str]:
  """print, and exceptions caught that nobody can handle."""
  problems = []
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Call) and ast.unparse(node.func) == 'print':
      problems.append(f'{path}:{node.lineno}: print')
    if isinstance(node, ast.ExceptHandler):
      caught = 'everything' if node.type is None else ast.unparse(node.type)
      if re.search(r'\b(everything|Exception|BaseException)\b', caught):
        problems.append(f'{path}:{node.lineno}: catches {caught}')
  return problems


def _strangers(entries: list[str], ignored: str) -> list[str]:
  """Entries of the top level that neither belong there nor are ignored."""
  patterns = ['.git', *(line.strip('/') for line in ignored.split())]
  return [
    entry
    for entry in sorted(entries)
    if entry not in _TOP_LEVEL
    and not any(fnmatch.fnmatch(entry, pattern) for pattern in patterns)
  ]


@pytest.mark.parametrize(
  'check, folders',
  [
    (_wrong_imports, ('erp_jax', 'launch', 'configs')),
    (_wrong_einsums, ('erp_jax', 'launch')),
    (_too_long, ('erp_jax', 'launch')),
    (_wrong_calls, ('erp_jax',)),
  ],
)
def test_every_module_keeps_the_convention(
  check: Callable[[str, str], list[str]], folders: tuple[str, ...]
):
  problems = [
    problem
    for path, source in _sources(*folders)
    for problem in check(path, source)
  ]
  assert not problems, '\n'.join(problems)


def test_the_top_level_holds_only_what_belongs_there():
  ignored = (_ROOT / '.gitignore').read_text()
  assert not _strangers(os.listdir(_ROOT), ignored)


def _loaded_by(modules: list[str], cwd: pathlib.Path) -> set[str]:
  """What of _HEAVY a fresh process has loaded after importing these."""
  program = (
    f'import importlib, sys\n'
    f'for name in {modules}: importlib.import_module(name)\n'
    f'sys.stdout.write(" ".join(set({_HEAVY}) & set(sys.modules)))'
  )
  done = subprocess.run(
    [sys.executable, '-c', program],
    cwd=cwd,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  return set(done.stdout.split())


@pytest.mark.parametrize('folder', _LIGHT_FOLDERS)
def test_fitting_and_routing_load_no_model_code(folder: str):
  modules = [
    path.removesuffix('.py').replace('/', '.').removesuffix('.__init__')
    for path, _ in _sources(f'erp_jax/{folder}')
  ]
  assert _loaded_by(modules, _ROOT) == set()


def test_loading_is_seen_through_others(tmp_path: pathlib.Path):
  (tmp_path / 'near.py').write_text('import far\n')
  (tmp_path / 'far.py').write_text('import tokenizers\n')
  assert _loaded_by(['near'], tmp_path) == {'tokenizers'}


@pytest.mark.parametrize(
  'path, source',
  [
    ('erp_jax/core/a.py', 'from erp_jax.data import prompts'),
    ('erp_jax/data/a.py', 'import erp_jax.models.decoder'),
    ('erp_jax/score/a.py', 'from erp_jax.sample import engine'),
    ('erp_jax/route/a.py', 'def f():\n  from erp_jax.report import page'),
    ('erp_jax/probe/a.py', 'from erp_jax import route'),
    ('erp_jax/core/a.py', 'import erp_jax'),
    ('erp_jax/core/a.py', 'from . import errors'),
    ('erp_jax/serve/a.py', 'from launch import app'),
    ('erp_jax/new/a.py', 'from erp_jax.core import errors'),
    ('configs/a.py', 'from configs import b'),
    ('launch/a.py', 'from tests import conftest'),
  ],
)
def test_an_import_against_the_order_is_found(path: str, source: str):
  assert len(_wrong_imports(path, source)) == 1


@pytest.mark.parametrize(
  'path, source',
  [
    ('erp_jax/score/a.py', 'from erp_jax.models import decoder'),
    ('erp_jax/core/a.py', 'import jax\nfrom erp_jax.core import errors'),
    ('launch/a.py', 'from erp_jax.serve import router\nimport launch.app'),
    ('configs/a.py', 'from launch import experiment'),
  ],
)
def test_an_import_along_the_order_is_fine(path: str, source: str):
  assert not _wrong_imports(path, source)


@pytest.mark.parametrize(
  'source, num_wrong',
  [
    ("y_NM = jnp.einsum('NE,EM->NM', x_NE, w_EM)", 0),
    ("y_NM = jnp.einsum('NE,EM->NM', x_NE, f(w))", 0),
    ("y_NM = jnp.einsum('NE,EM->NM', x_NE, p.w)", 0),
    ("y_TM = jnp.einsum('...E,EM->...M', x_TE, w_EM)", 0),
    ("y_TM = jnp.einsum('...E,EM->...M', x_ET, w_EM)", 1),
    ("total = np.einsum('N,N->', x_N, x_N)", 0),
    ("y_NM = jnp.einsum('NE,EM->NM', x, w_EM)", 1),
    ("y_NM = np.einsum('NE,EM->NM', x_EN, w_ME)", 2),
    ("y_NM = jnp.einsum('NE,EM->NM', x_NE, p.w_ME)", 1),
    ("y_MN = jnp.einsum('NE,EM->NM', x_NE, w_EM)", 1),
    ('return_ = jnp.einsum(spec, x, w)', 0),
  ],
)
def test_einsum_names(source: str, num_wrong: int):
  assert len(_wrong_einsums('a.py', source)) == num_wrong


@pytest.mark.parametrize(
  'path, num_lines, source, is_wrong',
  [
    ('erp_jax/core/a.py', 400, '', False),
    ('erp_jax/core/a.py', 401, '', True),
    ('launch/app.py', 81, '', False),
    ('launch/fit.py', 80, "if __name__ == '__main__':", False),
    ('launch/fit.py', 81, "if __name__ == '__main__':", True),
  ],
)
def test_a_long_module_is_found(
  path: str, num_lines: int, source: str, is_wrong: bool
):
  text = source + '\n' + 'x = 1\n' * (num_lines - 1)
  assert bool(_too_long(path, text)) == is_wrong


@pytest.mark.parametrize(
  'source, is_wrong',
  [
    ("print('here')", True),
    ('try:\n  f()\nexcept:\n  g()', True),
    ('try:\n  f()\nexcept Exception as e:\n  g()', True),
    ('try:\n  f()\nexcept (ValueError, BaseException):\n  g()', True),
    ('try:\n  f()\nexcept OSError:\n  g()', False),
    ("console.print('here')", False),
  ],
)
def test_print_and_wide_excepts_are_found(source: str, is_wrong: bool):
  assert bool(_wrong_calls('a.py', source)) == is_wrong


def test_a_stranger_at_the_top_level_is_found():
  entries = ['.git', 'Makefile', 'notes.txt', 'erp_jax.egg-info', 'runs']
  assert _strangers(entries, '/runs/\n*.egg-info/\n') == ['notes.txt']
