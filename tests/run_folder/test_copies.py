"""What the ranks of an array of programs say of its copies."""

from __future__ import annotations

import dataclasses

from hpcjobs.run_folder.attempts import FailedAttempt
from hpcjobs.run_folder.copies import numbers, state_of, view_copies
from hpcjobs.run_folder.heartbeat import Vitals
from hpcjobs.run_folder.liveness import RankView
from hpcjobs.run_folder.process import Identity
from hpcjobs.run_folder.rank_state import RankState
from hpcjobs.run_folder.submission import Launch

LAUNCH = Launch(number=1, executor="local", jobs={}, shape="", ranks=2, indexes=(0, 1))


def rank(index: int, attempt: str, state: RankState, number: int = 0, at: float = 1.0, world: int = 1) -> RankView:
    vitals = Vitals(
        rank=number, attempt=attempt, host="n", world_size=world, identity=Identity.own().values(), index=index,
        started_at=at, first_error="HpcJobsError: exit code 4" if state == RankState.FAILED else None,
    )  # fmt: skip
    return RankView(vitals, state, state == RankState.WORKING, 0.0)


def failed(attempt: str, again: bool) -> FailedAttempt:
    return FailedAttempt(attempt=attempt, restart=0, restarts=1, rank=0, host="n", why="exit code 4", again=again)


def test_a_copy_is_complete_once_all_its_ranks_were() -> None:
    ranks = [rank(0, "a", RankState.DONE, n, world=2) for n in range(2)] + [rank(1, "b", RankState.DONE, world=2)]
    assert [one.state for one in view_copies(ranks, 2, [])] == ["complete", "failed"]
    later = [*ranks, rank(0, "c", RankState.FAILED, at=9.0)]
    assert view_copies(later, 1, [])[0].state == "complete", "what it has done stays done"


def test_the_newest_start_counts() -> None:
    ranks = [rank(0, "a", RankState.FAILED), rank(0, "b", RankState.DRAINED, at=2.0)]
    assert view_copies(ranks, 1, [])[0].state == "incomplete"
    copy = view_copies(reversed([*ranks, rank(0, "c", RankState.FAILED, at=3.0)]), 1, [])[0]
    assert (copy.state, copy.attempt, copy.why) == ("failed", "c", "rank 0 on n: HpcJobsError: exit code 4")


def test_while_it_lives() -> None:
    ranks = [rank(0, "local1t5_0", RankState.WORKING), rank(1, "local0t4_1", RankState.FAILED)]
    assert [one.state for one in view_copies(ranks, 3, [], LAUNCH)] == ["running", "pending", "pending"]
    only_first = dataclasses.replace(LAUNCH, indexes=(0,))
    assert view_copies(ranks, 2, [], only_first)[1].state == "failed", "this launch does not start it"


def test_between_two_attempts_it_runs() -> None:
    ranks = [rank(0, "local1t5_0", RankState.FAILED)]
    assert view_copies(ranks, 1, [failed("local1t5_0", True)], LAUNCH)[0].state == "running"
    assert view_copies(ranks, 1, [failed("local1t5_0", False)], LAUNCH)[0].state == "failed"
    assert view_copies(ranks, 1, [failed("local1t5_0", True)])[0].state == "failed", "what was to come never has"


def test_what_has_not_begun() -> None:
    assert view_copies([], 1, [])[0].why == "none of its ranks has begun"
    assert view_copies([], 1, [], cancelled=True)[0].state == "pending"


def test_what_they_come_to() -> None:
    states = (RankState.DONE, RankState.DRAINED, RankState.DEAD)
    done, drained, bad = (rank(index, "a", state) for index, state in enumerate(states))
    assert state_of(view_copies([done], 1, [])) == "complete"
    assert state_of(view_copies([done, drained], 2, [])) == "incomplete"
    assert state_of(view_copies([done, drained, bad], 3, [])) == "failed"


def test_numbers_for_people() -> None:
    assert numbers([0, 1, 2, 4, 7, 8]) == "0-2, 4, 7-8"
    assert numbers([]) == ""
