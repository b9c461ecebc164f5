"""From predicted rewards to decisions; NumPy alone.

`artifact.load(folder).policy` is a Policy, and so is what `policy.calibrate`
makes.
"""

from erp_jax.route import policy as _policy

Policy = _policy.Policy
Decision = _policy.Decision
