"""What status says of a program: its attempts that have failed, its copies, and the ranks that count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpcjobs.run_folder.attempts import FailedAttempt, failed_attempts
from hpcjobs.run_folder.copies import Copy, array_size, view_copies
from hpcjobs.run_folder.liveness import RankView
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan
from hpcjobs.run_folder.run_state import RunState
from hpcjobs.run_folder.submission import Launch, together

# How many failed copies of an array are told of one by one.
_MOST_COPIES = 5


@dataclass(frozen=True, kw_only=True)
class ProgramView:
    """The failed attempts of the last launch, the copies of an array, and the ranks of the newest attempt of each."""

    attempts: list[FailedAttempt]
    copies: list[Copy]
    ranks: list[RankView]

    def notes(self) -> list[str]:
        """What came after each failed attempt, and how copies have failed."""
        failed = [one for one in self.copies if one.state == RunState.FAILED]
        return [str(one) for one in self.attempts if one.restarts] + [
            f"copy {one.index} has failed: {one.why}" for one in failed[:_MOST_COPIES]
        ]


def look_at_program(
    paths: RunPaths, launches: Sequence[Launch], ranks: Sequence[RankView], going: bool, cancelled: bool
) -> ProgramView:
    """The program of a run, from the ranks of all its starts."""
    now, failed = together(launches), failed_attempts(paths)
    size = array_size(Plan.read(paths.plan), launches)
    copies = view_copies(ranks, size, failed, now[-1] if going and now else None, cancelled) if size else []
    attempts = {copy.attempt for copy in copies}
    mine = [rank for rank in ranks if not now or any(one.owns(rank.vitals.attempt) for one in now)]
    return ProgramView(
        attempts=[one for one in failed if any(launch.owns(one.attempt) for launch in now)],
        copies=copies,
        ranks=[one for one in ranks if one.vitals.attempt in attempts] if copies else newest_start(mine),
    )


def newest_start(ranks: Sequence[RankView]) -> list[RankView]:
    """The ranks of the newest attempt."""
    newest = max((rank.vitals for rank in ranks), key=lambda vitals: vitals.started_at, default=None)
    return [rank for rank in ranks if newest and rank.vitals.attempt == newest.attempt]
