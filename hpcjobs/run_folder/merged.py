"""What a merge found: how many samples are accepted, which are missing, and the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpcjobs.run_folder.metrics_file import Summary


@dataclass(frozen=True)
class Merged:
    """What a merge came to; `missing` has the indexes without an accepted result."""

    rows: int
    accepted: int
    missing: Sequence[int]
    metrics: Mapping[str, Summary]

    @property
    def complete(self) -> bool:
        return not self.missing
