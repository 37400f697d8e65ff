"""Life: a rank process and what was done to it, so far as it matters to its leases."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_SECOND = 10**9


@dataclass
class Life:
    """One rank, by its journal; times by the clock of the file system, in nanoseconds."""

    journal: Path
    stopped: bool = False
    woken: int | None = None
    killed: int | None = None
    drained: bool = False

    def dead_at(self, moment: int) -> bool:
        """Certainly dead then; one that was killed right after it woke may have written behind a reader's back."""
        if self.killed is None or self.killed > moment:
            return False
        return self.woken is None or self.killed - self.woken > _SECOND


def file_clock(folder: Path) -> int:
    """Now, by the clock that stamps the claims of the run in `folder`."""
    mark = folder.with_suffix(".clock")
    mark.touch()
    return mark.stat().st_mtime_ns
