"""The config of launch.benchmark: which case, where, and the work of each."""

import dataclasses

from erp_jax.core import errors
from launch.benchmarks import contest
from launch.benchmarks import embed as embed_case
from launch.benchmarks import fit as fit_case
from launch.benchmarks import load as load_case
from launch.benchmarks import route as route_case
from launch.benchmarks import sample as sample_case
from launch.benchmarks import sample_large as sample_large_case
from launch.benchmarks import score as score_case


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
  """A case, the device, and the sizes of each case's work."""

  case: str = 'sample'
  device: str = 'cpu'
  rounds: int = 5  # After the first run, which is the cold start.
  embed: embed_case.EmbedWork = embed_case.EmbedWork()
  fit: fit_case.FitWork = fit_case.FitWork()
  load: load_case.LoadWork = load_case.LoadWork()
  route: route_case.RouteWork = route_case.RouteWork()
  sample: sample_case.SampleWork = sample_case.SampleWork()
  sample_large: sample_large_case.LargeWork = sample_large_case.LargeWork()
  score: score_case.ScoreWork = score_case.ScoreWork()

  def __post_init__(self):
    errors.check_choice('case', self.case, CASES)
    errors.check_choice('device', self.device, contest.PLATFORMS)
    errors.check_least('rounds', self.rounds, 1)

  def contests(self) -> list[contest.Contest]:
    """Who takes part in the case."""
    work = getattr(self, self.case)
    if self.case == 'sample_large' and self.device == 'cpu':
      work = work.without_accelerator()
    return CASES[self.case](work)


CASES = {
  'embed': embed_case.contests,
  'fit': fit_case.contests,
  'load': load_case.contests,
  'route': route_case.contests,
  'sample': sample_case.contests,
  'sample_large': sample_large_case.contests,
  'score': score_case.contests,
}
