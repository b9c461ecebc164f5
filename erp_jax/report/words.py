"""How numbers and names are written, everywhere in the report."""

import math

from erp_jax.report import evaluation as evaluation_lib

DASH = '–'
_POLICIES = {
  evaluation_lib.ERP: 'ERP router',
  'erp_loo': 'ERP, penalty by leave-one-out',
  'erp_guarded': 'ERP, guarded',
  'zooter': 'Zooter',
  evaluation_lib.STATIC: 'Static mixture (ignores the prompt)',
  'static_mixture_hindsight': 'Static mixture in hindsight (test means)',
  evaluation_lib.PERMUTED: 'ERP shuffled (same cost, ignores the prompt)',
  evaluation_lib.RANDOM: 'Random arm',
  evaluation_lib.ORACLE: 'Per-category best (oracle; test labels)',
}


def policy(name: str, models: dict[str, str]) -> str:
  """What a policy is called; `models` are the names of the models."""
  if name.startswith(evaluation_lib.SAME):
    model = name.removeprefix(evaluation_lib.SAME)
    return f'Always {models.get(model, model)}'
  return _POLICIES[name]


def number(value: float, digits: int = 3) -> str:
  """Fixed digits with a true minus sign; a dash for NaN."""
  if math.isnan(value):
    return DASH
  text = f'{value:.{digits}f}'
  if not text.strip('-0.'):
    text = text.lstrip('-')  # No minus before what rounds to zero.
  return text.replace('-', '−')


def difference(value: float) -> str:
  """Signed, and finer than `number`: differences of regret are small."""
  text = number(value, 4)
  return f'+{text}' if value > 0 and text.strip('0.') else text


def interval(lo: float, hi: float, write=number) -> str:
  """'[lo, hi]', empty if unknown."""
  if math.isnan(lo) or math.isnan(hi):
    return ''
  return f'[{write(lo)}, {write(hi)}]'


def uncertain(mean: float | None, se: float | None, digits: int = 3) -> str:
  """'0.412(13)' for a mean of .412 with a standard error of .013.

  A dash for what is undefined, no bracket where the error is unknown.
  """
  if mean is None:
    return DASH
  if se is None:
    return number(mean, digits)
  return f'{number(mean, digits)}({round(se * 10**digits)})'


def cost(value: float) -> str:
  """Three significant digits: costs span many orders of magnitude."""
  if math.isnan(value):
    return DASH
  if value and not 1e-3 <= abs(value) < 1e5:
    digits, exponent = f'{value:.2e}'.split('e')
    return f'{digits}·10{_superscript(int(exponent))}'
  return f'{value:.3g}' if abs(value) < 1000 else f'{value:.0f}'


def count(value: int) -> str:
  """Thousands apart, by a narrow space that does not break."""
  return f'{value:,}'.replace(',', '\u202f')


def share(value: float) -> str:
  """A fraction as per cent."""
  return DASH if math.isnan(value) else f'{number(100 * value, 1)} %'


def signed_share(value: float) -> str:
  """A difference of fractions, in points of per cent."""
  if math.isnan(value):
    return DASH
  text = f'{number(100 * value, 1)} %'
  return f'+{text}' if value > 0 and text.strip('0. %') else text


def budget(name: str) -> str:
  """'0.25' as '25 %'."""
  return f'{100 * float(name):.0f} %'


def join(parts: list[str]) -> str:
  """'a, b and c'."""
  if not parts[1:]:
    return ''.join(parts)
  return f'{", ".join(parts[:-1])} and {parts[-1]}'


def _superscript(value: int) -> str:
  digits = str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹')
  return str(value).translate(digits)
