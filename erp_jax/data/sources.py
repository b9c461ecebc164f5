"""Where prompts come from: a category for each source, and counts of rows."""

import collections
from collections.abc import Iterable, Mapping

from erp_jax.core import config, errors


def check_table(categories: Mapping[str, str]) -> None:
  """UserError for a category with blanks around its name."""
  for source, category in categories.items():
    if category != category.strip():
      raise errors.UserError(
        f'prompts.categories gives {source!r} the category {category!r}, but '
        "must give it a name without blanks around it, or '' to leave it out."
      )


class Tally:
  """What becomes of a file's rows, by source.

  A source is what stands in the category column; `categories` gives each its
  category, '' to leave it out. An empty table: each source is its category.
  """

  def __init__(self, categories: Mapping[str, str]):
    self._categories = categories
    self._rows = collections.Counter()
    self._left_out = collections.defaultdict(collections.Counter)

  def category(self, source: str) -> str:
    """Counts a row of this source; its category, '' if it is left out."""
    self._rows[source] += 1
    if not self._categories:
      return source
    category = self._categories.get(source, '')
    if not category:
      self.leave_out(source, 'left_out')
    return category

  def leave_out(self, source: str, why: str) -> None:
    """Counts a row that was counted already as left out."""
    self._left_out[source][why] += 1

  def said(self) -> str:
    """' (…)' with how many rows were left out why; empty if none were."""
    total = sum(self._left_out.values(), collections.Counter())
    why = ', '.join(f'{name} {count}' for name, count in sorted(total.items()))
    return f' ({why})' if why else ''

  def check(self, path: str) -> None:
    """UserError naming the sources of a file that the table lacks."""
    unknown = sorted(set(self._rows) - set(self._categories))
    if not self._categories or not unknown:
      return
    found = ', '.join(f'{name!r} ({self._rows[name]} rows)' for name in unknown)
    raise errors.UserError(
      f'{path} has the sources {found}, which prompts.categories lacks: give '
      "each a category there, or '' to leave it out; "
      f'{config.did_you_mean(unknown[0], self._categories)}'
    )

  def counts(self, kept: Iterable[str]) -> dict[str, dict[str, str | int]]:
    """`category`, `rows`, `kept` and why others were not, by source.

    `kept` are the sources of the prompts that were kept. Reasons that did not
    occur are not there; a source of the table without rows is.
    """
    kept = collections.Counter(kept)
    table = self._categories or {name: name for name in self._rows}
    return {
      name: {
        'category': category,
        'rows': self._rows[name],
        'kept': kept[name],
        **self._left_out[name],
      }
      for name, category in sorted(table.items())
    }


def limited(
  counts: Mapping[str, Mapping[str, str | int]], kept: Iterable[str]
) -> dict[str, dict[str, str | int]]:
  """Such counts once fewer are kept: the others are `over_limit`."""
  kept = collections.Counter(kept)
  result = {}
  for name, count in counts.items():
    result[name] = {**count, 'kept': kept[name]}
    if over_limit := count['kept'] - kept[name]:
      result[name]['over_limit'] = over_limit
  return result
