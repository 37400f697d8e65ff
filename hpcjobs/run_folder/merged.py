"""The result of a merge: accepted and missing samples, and the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpcjobs.run_folder.metrics_file import Summary


@dataclass(frozen=True, kw_only=True)
class Merged:
    """The result of a merge.

    `missing` has the indexes without an accepted result, `failed` those whose result has no completion. `kept` is the
    reason why the table that stands was kept; '' if it was replaced.
    """

    rows: int
    accepted: int
    missing: Sequence[int]
    metrics: Mapping[str, Summary]
    failed: Sequence[int] = ()
    kept: str = ""

    @property
    def complete(self) -> bool:
        """Whether every row has an accepted result."""
        return not self.missing
