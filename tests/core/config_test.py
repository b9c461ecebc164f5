"""ConfigDicts become dataclasses, and mistakes are named."""

import dataclasses

import pytest

from erp_jax.core import config, errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Inner:
  rate: float = 0.5
  sizes: tuple[int, ...] = (1, 2)

  def __post_init__(self):
    if self.rate < 0:
      raise errors.UserError(f'inner.rate must be >= 0, got {self.rate}.')


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Outer:
  name: str = 'x'
  count: int = 3
  on: bool = True
  inner: _Inner = _Inner()
  many: dict[str, _Inner] = dataclasses.field(default_factory=dict)


def test_round_trip_through_a_config_dict():
  value = _Outer(many={'a': _Inner(rate=2.0), 'b': _Inner(sizes=())})
  values = config.as_config_dict(value)
  assert config.build(_Outer, values.to_dict()) == value
  values.many.a.rate = 3.0
  assert config.build(_Outer, values.to_dict()).many['a'].rate == 3.0


def test_names_of_data_may_hold_dots():
  value = _Outer(many={'org/a-2.5': _Inner(rate=2.0), 'b': _Inner()})
  values = config.as_config_dict(value)
  assert config.build(_Outer, values.to_dict()) == value
  values.count = 4
  assert config.build(_Outer, values.to_dict()).many == value.many


def test_an_int_may_stand_for_a_float():
  inner = config.build(_Inner, {'rate': 2})
  assert isinstance(inner.rate, float) and inner.rate == 2.0


@pytest.mark.parametrize(
  'values, message',
  [
    ({'cuont': 1}, r"config\.cuont is not a field; did you mean 'count'"),
    ({'inner': {'rte': 1.0}}, r"config\.inner\.rte .* did you mean 'rate'"),
    ({'many': {'a': {'sise': ()}}}, r'config\.many\.a\.sise'),
    ({'count': 1.5}, r'config\.count must be of type int, got 1\.5'),
    ({'count': True}, r'config\.count must be of type int'),
    ({'name': 3}, r'config\.name must be of type str'),
    ({'on': 1}, r'config\.on must be of type bool'),
    ({'inner': 3}, r'config\.inner must be a group of fields'),
    ({'inner': {'sizes': 3}}, r'config\.inner\.sizes must be a list'),
    ({'inner': {'sizes': '12'}}, r'config\.inner\.sizes must be a list'),
    ({'inner': {'sizes': (1, 'a')}}, r'config\.inner\.sizes\[1\]'),
    ({'inner': {'rate': -1.0}}, r'inner\.rate must be >= 0'),
  ],
)
def test_mistakes_are_named(values, message):
  with pytest.raises(errors.UserError, match=message):
    config.build(_Outer, values)


def test_the_fields_of_a_base_class_alone():
  @dataclasses.dataclass(frozen=True, kw_only=True)
  class Binary(_Inner):
    threads: int = 8

  value = Binary(rate=2.0, threads=4)
  assert config.as_plain_fields(value, _Inner) == {'rate': 2.0, 'sizes': (1, 2)}
  assert config.as_plain(value)['threads'] == 4
