"""The copies of a program in an array: each is done, failed or goes on by itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hpcjobs.run_folder.attempts import FailedAttempt
from hpcjobs.run_folder.liveness import RankView
from hpcjobs.run_folder.plan import Plan
from hpcjobs.run_folder.rank_state import RankState
from hpcjobs.run_folder.run_state import RunState
from hpcjobs.run_folder.submission import Launch

_IN_ORDER = {RankState.DONE, RankState.DRAINED}


@dataclass(frozen=True, kw_only=True)
class Copy:
    """The copy with this index: complete, incomplete (it was warned), failed, running, or pending as it has not begun.

    `attempt` is its newest start, `why` how a failed one has ended.
    """

    index: int
    state: RunState
    attempt: str | None = None
    why: str | None = None


def array_size(plan: Plan, launches: Sequence[Launch]) -> int | None:
    """How many copies a run of a program has; None if it is no array."""
    return plan.shape.workers if any(one.indexes for one in launches) else None


def view_copies(
    ranks: Iterable[RankView],
    size: int,
    failed: Iterable[FailedAttempt],
    launch: Launch | None = None,
    cancelled: bool = False,
) -> list[Copy]:
    """The copies, from all ranks of all starts.

    `failed` are the attempts that have, `launch` is the newest if it lives. A copy that has not begun when nothing
    lives any more has failed, unless the run was `cancelled` before: it is still pending.
    """
    starts: dict[int, dict[str, list[RankView]]] = {}
    for rank in ranks:
        if rank.vitals.index is not None:
            starts.setdefault(rank.vitals.index, {}).setdefault(rank.vitals.attempt, []).append(rank)
    told = {one.attempt: one for one in failed}
    absent = RunState.PENDING if launch or cancelled else RunState.FAILED
    copies = []
    for index in range(size):
        if begun := list(starts.get(index, {}).values()):
            copies.append(_copy(index, begun, told, launch))
        else:
            why = "none of its ranks has begun" if absent == RunState.FAILED else None
            copies.append(Copy(index=index, state=absent, why=why))
    return copies


def _copy(index: int, starts: Sequence[list[RankView]], told: dict[str, FailedAttempt], launch: Launch | None) -> Copy:
    for ranks in starts:
        if _whole(ranks) and {rank.state for rank in ranks} == {RankState.DONE}:
            return Copy(index=index, state=RunState.COMPLETE, attempt=ranks[0].vitals.attempt)
    newest = max(starts, key=lambda ranks: max(rank.vitals.started_at for rank in ranks))
    attempt, states = newest[0].vitals.attempt, {rank.state for rank in newest}
    record = told.get(attempt)
    if launch and index in launch.indexes and not launch.owns(attempt):
        return Copy(index=index, state=RunState.PENDING, attempt=attempt)
    if launch and (any(rank.live for rank in newest) or (record and record.again)):
        return Copy(index=index, state=RunState.RUNNING, attempt=attempt)
    if _whole(newest) and states <= _IN_ORDER:
        return Copy(index=index, state=RunState.INCOMPLETE, attempt=attempt)
    return Copy(index=index, state=RunState.FAILED, attempt=attempt, why=record.cause if record else _why(newest))


def _whole(ranks: Sequence[RankView]) -> bool:
    return len(ranks) == ranks[0].vitals.world_size


def _why(ranks: Sequence[RankView]) -> str | None:
    """The first cause; that another rank was lost is none."""
    said = [one.vitals for one in ranks if one.vitals.first_error or one.vitals.ended]
    first = min(said, key=lambda one: (one.first_error or "").startswith("LostRankError"), default=None)
    return f"rank {first.rank} on {first.host}: {first.first_error or first.ended}" if first else None


def state_of(copies: Sequence[Copy]) -> RunState:
    """What the copies of a run that is over come to."""
    states = {copy.state for copy in copies}
    if states == {RunState.COMPLETE}:
        return RunState.COMPLETE
    return RunState.INCOMPLETE if states <= {RunState.COMPLETE, RunState.INCOMPLETE} else RunState.FAILED


def numbers(indexes: Sequence[int]) -> str:
    """`0-4, 7`: increasing numbers, for people."""
    runs: list[list[int]] = []
    for index in indexes:
        if runs and runs[-1][-1] == index - 1:
            runs[-1][1:] = [index]
        else:
            runs.append([index])
    return ", ".join("-".join(map(str, run)) for run in runs)
