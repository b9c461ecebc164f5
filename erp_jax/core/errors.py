"""The one exception that means: a person can mend this."""


class UserError(ValueError):
  """Input, config or file that the user can fix; shown as one line, no trace.

  The message names the value, what is allowed, and the fix.
  """
