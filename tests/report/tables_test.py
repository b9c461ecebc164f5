from erp_jax.report import evaluation, tables


def _load(inputs):
  return evaluation.load(inputs.write() / 'replay', 'Records')


def test_lowest_regret_without_oracle_is_strong(make_inputs):
  inputs = make_inputs()
  regret = inputs.metrics['replay']['regret_at_budget']
  for i, policy in enumerate(('per_category', 'same:terse', 'erp')):
    regret[policy]['0.5']['mean'] = 0.01 + 0.01 * i
  inputs.make_infeasible('replay', '0.25')
  table = tables.budgets(_load(inputs))
  strong = [[cell.text for cell in row if cell.strong] for row in table.rows]
  assert (
    '0.020' in strong[[r[0].text for r in table.rows].index('Always terse')]
  )
  assert not strong[-1]  # The oracle.
  assert sum(map(len, strong)) == 3  # One for each feasible budget.


def test_budget_met_in_some_splits_only_is_said(make_inputs):
  inputs = make_inputs()
  inputs.metrics['replay']['regret_at_budget']['erp']['0.5']['n_splits'] = 1
  table = tables.budgets(_load(inputs))
  assert table.rows[0][2].note.endswith('met in 1 of 2 splits')
  assert not any('met in' in c.note for row in table.rows[1:] for c in row)


def test_one_split_has_no_mean_of_splits(make_inputs):
  inputs = make_inputs()
  inputs.seeds = [3]
  found = _load(inputs)
  assert len(tables.paired(found).head) == 4
  bounds = inputs.intervals['replay']['regret_at_budget']['erp']['0.75']
  lo, hi = (f'{bounds[key]:.3f}' for key in ('lo', 'hi'))
  note = tables.budgets(found).rows[0][3].note
  assert note.splitlines()[0] == f'[{lo}, {hi}]'
  assert 'one random split' in tables.budgets(found).title
  assert tables.r2(found).rows[0][0].text == 'all prompts'
  for table in (tables.paired(found), tables.r2(found), tables.wins(found)):
    assert all(len(row) == len(table.head) for row in table.rows)
