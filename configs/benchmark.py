"""Every stage against its peers: configs/benchmark.py:CASE.

python -m launch.benchmark --config=configs/benchmark.py:sample
"""

from erp_jax.core import config
from launch import benchmark_config


def get_config(arg='sample'):
  return config.as_config_dict(benchmark_config.Benchmark(case=arg))
