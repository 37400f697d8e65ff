"""The result of a merge: accepted and missing samples, and the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpcjobs.run_folder.metrics_file import Summary


@dataclass(frozen=True)
class Merged:
    """The result of a merge.

    `missing` has the indexes without an accepted result, `failed` those whose result has no completion.
    """

    rows: int
    accepted: int
    missing: Sequence[int]
    metrics: Mapping[str, Summary]
    failed: Sequence[int] = ()

    @property
    def complete(self) -> bool:
        """Whether every row has an accepted result."""
        return not self.missing
