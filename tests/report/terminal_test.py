import io

from rich import console

from erp_jax.report import terminal


def test_terminal_table_has_headline_numbers(make_inputs):
  inputs = make_inputs()
  inputs.make_infeasible('replay', '0.25')
  path = inputs.write()
  sink = io.StringIO()
  console.Console(file=sink, width=150).print(
    terminal.terminal_table(path, inputs.rewards, {'[b]R': path / 'replay'})
  )
  text = sink.getvalue()
  lines = text.splitlines()
  assert len(lines) < 40
  regret = inputs.metrics['replay']['regret_at_budget']['erp']
  (row,) = [line for line in lines if 'ERP router' in line]
  assert [cell.strip() for cell in row.split('│')[2:-1]] == [
    '–',
    *(f'{regret[b]["mean"]:.3f}' for b in ('0.5', '0.75', '1.0')),
  ]
  r2 = inputs.intervals['verify']['r2']['terse']['aggregate']
  (row,) = [line for line in lines if '│ terse' in line]
  assert f'{r2["mean"]:.3f} [{r2["lo"]:.3f}, {r2["hi"]:.3f}]' in row
  assert 'judge (scored by the model that answered)' in text
  assert '[b]R' in text  # Not read as rich's markup.
