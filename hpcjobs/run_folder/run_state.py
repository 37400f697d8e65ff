"""The states of a run."""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    """The state of a run; the values are the words in text and JSON output."""

    PLANNED = "planned"  # nothing of it was started
    PENDING = "pending"  # its jobs wait in the queue; in a report: there is no result yet
    RUNNING = "running"  # jobs, ranks or the merge of it live
    UNKNOWN = "unknown"  # Slurm does not answer, and no rank shows life
    ENDED = "ended"  # ranks that were started by hand have ended, and nothing was merged
    COMPLETE = "complete"  # every sample has its result, every step is done, every rank of a script has ended well
    INCOMPLETE = "incomplete"  # it was merged, and results are missing
    CANCELLED = "cancelled"  # it was asked to end, and nothing was merged
    FAILED = "failed"  # it has ended with an error, or without anything to merge

    @property
    def over(self) -> bool:
        """Whether nothing of the run will continue by itself."""
        return self not in (RunState.PENDING, RunState.RUNNING, RunState.UNKNOWN)

    @property
    def merged(self) -> bool:
        """Whether it has results, complete or not."""
        return self in (RunState.COMPLETE, RunState.INCOMPLETE)
