"""What each rank of each attempt did, and when, from heartbeats and journals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hpcjobs.errors import MergeError
from hpcjobs.report.intervals import Floats, Intervals
from hpcjobs.run_folder.journal.table import journal_schema, read_columns
from hpcjobs.run_folder.liveness import LOST, RankView, view_ranks
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.rank_state import RankState
from hpcjobs.run_folder.submission import read_launches, together

KINDS = ("load", "work", "idle", "unknown")
_SCHEMA = journal_schema(pa.schema([]))
_NOTHING = np.empty((0, 2))
_LOST = LOST | {RankState.OVER, RankState.FAILED, RankState.NO_HEARTBEAT}


@dataclass(kw_only=True)
class Activity:
    """One rank of one attempt. Times in Unix seconds; `work` has (start, end) rows, `busy` is their exact sum.

    `live`: it may still be running. `ended` is why it ended early.
    """

    attempt: str
    rank: int
    host: str = "?"
    device: str = ""
    state: RankState = RankState.NO_HEARTBEAT
    first_error: str | None = None
    start: float = math.inf
    ready: float | None = None
    end: float = -math.inf
    samples: int = 0
    errors: int = 0
    tokens: int = 0
    work: Floats = field(default_factory=lambda: _NOTHING)
    busy: float = 0.0
    journal: str = "none"
    ended: str | None = None
    live: bool = False

    @property
    def seconds(self) -> float:
        """Seconds from start to end."""
        return max(0.0, self.end - self.start)

    @property
    def load(self) -> float:
        """Seconds from start until it was ready; all of them if it never was."""
        return min(max(0.0, (self.end if self.ready is None else self.ready) - self.start), self.seconds)

    @property
    def idle(self) -> float:
        """Seconds neither loading nor working; 0 if unknown."""
        return max(0.0, self.seconds - self.load - self.busy) if self.known else 0.0

    @property
    def known(self) -> bool:
        """Whether it is known when this rank worked."""
        return self.journal == "read" or not self.samples

    @property
    def lost(self) -> bool:
        """Whether the rank died, failed or never wrote a heartbeat."""
        return self.state in _LOST

    def parts(self, kind: str) -> Floats:
        """The (start, end) rows of one of KINDS; together the four cover the rank's whole time."""
        ready = self.start + self.load
        if kind == "load":
            return np.array([[self.start, ready]])
        if not self.known:
            return np.array([[ready, self.end]]) if kind == "unknown" else _NOTHING
        if kind == "work":
            return self.work
        return _between(self.work, ready, self.end) if kind == "idle" else _NOTHING


def _between(work: Floats, start: float, end: float) -> Floats:
    """The parts of start..end that are not in `work`."""
    gaps = np.column_stack([np.append(start, work[:, 1]), np.append(work[:, 0], end)])
    gaps = gaps.clip(start, max(start, end))
    return gaps[gaps[:, 1] > gaps[:, 0]]


def read_activities(paths: RunPaths, timeout: float, script: bool = False) -> tuple[list[Activity], list[str]]:
    """All ranks of all attempts, ordered by start and rank; and errors of files that could not be read.

    `timeout` is `run.lease_timeout`: seconds without a heartbeat after which a rank is silent. Ranks of a `script` or a
    training, which have no per-sample times, count as working once they are ready.
    """
    ranks = view_ranks(paths, together(read_launches(paths)), lambda: timeout)
    found = {rank.vitals.name: _of_rank(rank, script) for rank in ranks}
    notes = []
    for path in [] if script else paths.journals():
        attempt, _, rank = path.stem.rpartition("-")
        activity = found.setdefault(path.stem, Activity(attempt=attempt, rank=int(rank) if rank.isdigit() else 0))
        try:
            _read_journal(path, activity)
        except (MergeError, OSError) as error:
            activity.journal = "broken"
            notes.append(str(error))
    timed = [activity for activity in found.values() if activity.start <= activity.end]
    first = {activity.attempt: math.inf for activity in timed}
    for activity in timed:
        first[activity.attempt] = min(first[activity.attempt], activity.start)
    return sorted(timed, key=lambda a: (first[a.attempt], a.attempt, a.rank)), notes


def _of_rank(rank: RankView, script: bool) -> Activity:
    vitals = rank.vitals
    device = " ".join(filter(None, [vitals.device, vitals.gpu]))
    end = vitals.ended_at or vitals.beat_at
    activity = Activity(
        attempt=vitals.attempt,
        rank=vitals.rank,
        host=vitals.host,
        device=device,
        state=rank.state,
        first_error=vitals.first_error,
        start=vitals.started_at,
        ready=vitals.ready_at,
        end=end,
        samples=vitals.samples,
        errors=vitals.errors,
        tokens=vitals.tokens,
        ended=vitals.ended,
        live=rank.live,
    )
    if script:
        begun = min(max(vitals.ready_at or vitals.started_at, vitals.started_at), max(vitals.started_at, end))
        activity.ready, activity.busy, activity.journal = begun, max(0.0, end - begun), "read"
        activity.work = np.array([[begun, max(begun, end)]])
    return activity


def _read_journal(path: Path, activity: Activity) -> None:
    """Read counts and times from a journal. On a MergeError those of the heartbeat stay."""
    work, start, last = Intervals(), activity.start if activity.ready is None else activity.ready, -math.inf
    samples = errors = tokens = 0
    for table in read_columns(path, _SCHEMA, others="ignore"):
        samples += len(table)
        errors += len(table) - table.column("error").null_count
        tokens += pc.sum(table.column("completion_tokens")).as_py()
        began = np.asarray(table.column("started_at").to_numpy())
        begun = np.maximum(began, start if math.isfinite(start) else -math.inf)
        ended = began + table.column("seconds").to_numpy().clip(0)
        timed = (began > 0) & (begun <= ended) & (ended < math.inf)
        for one in _joined(begun[timed], ended[timed]):
            work.add(*one)
            last = max(last, one[1])
    activity.samples, activity.errors, activity.tokens = samples, errors, tokens
    activity.work, activity.busy, activity.journal = work.array(), work.total, "read"
    activity.end = max(activity.end, last)
    if len(activity.work) and not math.isfinite(start):
        activity.start = activity.ready = float(activity.work[0, 0])


def _joined(begun: Floats, ended: Floats) -> list[tuple[float, float]]:
    """Overlapping or touching intervals as one, by start: far fewer than samples."""
    if not len(begun):
        return []
    order = np.argsort(begun)
    begun, latest = begun[order], np.maximum.accumulate(ended[order])
    first = np.concatenate([[True], begun[1:] > latest[:-1]])
    last = np.concatenate([first[1:], [True]])
    return list(zip(begun[first].tolist(), latest[last].tolist(), strict=True))


def alive_seconds(activities: Sequence[Activity]) -> float:
    """Seconds in which at least one rank ran."""
    union = Intervals()
    for activity in activities:
        union.add(activity.start, activity.end)
    return union.total
