"""Which rules made the scores of a run: so that values of an earlier version are not taken for today's."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

# Raised when a metric of hpcjobs scores an answer otherwise than before; metrics.json keeps it as `scoring`.
SCORING = 2
# The metrics that changed, by the version that changed them.
_Table = dict[int, tuple[str, ...]]
_CHANGED: _Table = {2: ("number_match",)}


# Those that changed where `task.normalize` has numbers, whose reading changed.
_CHANGED_NUMBERS: _Table = {2: ("exact_match", "contains")}


def changed_since(scoring: int, names: Iterable[str], normalize: Collection[str] = ()) -> list[str]:
    """Those of the metrics that score otherwise now than by the rules `scoring`, also inside others such as pass@1."""
    tables = (_CHANGED, _CHANGED_NUMBERS if "numbers" in normalize else {})
    changed = {name for table in tables for version, names in table.items() if version > scoring for name in names}
    return [name for name in names if changed.intersection(re.findall(r"\w+", name))]
