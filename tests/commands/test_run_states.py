"""What state a run is in, by what launches, jobs, ranks and a merge say: every answer worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hpcjobs.commands import status
from hpcjobs.commands.status import _state, _still_going
from hpcjobs.launch.slurm import JobState
from hpcjobs.run_folder.process import Identity
from hpcjobs.run_folder.rank_state import RankState
from hpcjobs.run_folder.run_state import RunState


def launch(executor: str = "slurm", **more: Any) -> Any:
    values = {"launched": True, "jobs": {"work": "1"}, "starting": False, "supervisor": None, "cancelled": False,
              "ranks": 2}  # fmt: skip
    return SimpleNamespace(executor=executor, owns=lambda attempt: attempt.startswith("a"), **values | more)


def rank(live: bool = False, state: RankState = RankState.DONE, attempt: str = "a", fatal: bool = False) -> Any:
    vitals = SimpleNamespace(attempt=attempt, fatal=fatal, started_at=float(attempt == "a"))
    return SimpleNamespace(live=live, state=state, vitals=vitals)


def job(state: str, source: str = "squeue") -> JobState:
    return JobState(job_id="1", state=state, source=source)


def merged(state: RunState) -> Any:
    return SimpleNamespace(complete=state == RunState.COMPLETE, verdict=SimpleNamespace(state=state))


@pytest.fixture(autouse=True)
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "local_processes", lambda launch: vars(launch).get("processes"))


OVER, RUNS, WAITS = job("COMPLETED"), job("RUNNING"), job("PENDING")
FORGOTTEN, SILENT = job("UNKNOWN", "none"), job("UNKNOWN", "unreachable")
LIVE, DEAD = rank(True, RankState.WORKING), rank(state=RankState.DEAD)
OWN = Identity.own().values()


@pytest.mark.parametrize(
    ("launches", "jobs", "ranks", "going"),
    [
        ([], [], [LIVE], False),
        ([launch(starting=True)], [OVER], [], True),
        ([launch(launched=False, jobs={})], [], [], True), ([launch(launched=False)], [OVER], [], False),
        ([launch(jobs={})], [], [], False),
        ([launch()], [RUNS], [], True), ([launch()], [OVER, WAITS], [], True), ([launch()], [OVER], [LIVE], False),
        ([launch()], [FORGOTTEN], [], False), ([launch()], [FORGOTTEN], [LIVE], True),
        ([launch()], [OVER, FORGOTTEN], [LIVE], True), ([launch()], [SILENT], [], True),
        ([launch("local")], [], [], False), ([launch("local")], [], [LIVE], True),
        ([launch("local", processes=[1]), launch("local")], [], [], True),
        ([launch("local", supervisor=OWN)], [], [], True),
        ([launch("local", supervisor={**OWN, "started": "0"})], [], [], False),
        ([launch("other")], [], [LIVE], False),
    ],
)  # fmt: skip
def test_whether_anything_of_it_lives(launches: Any, jobs: Any, ranks: Any, going: bool) -> None:
    assert _still_going(launches, {str(n): one for n, one in enumerate(jobs)}, ranks) is going


@pytest.mark.parametrize(
    ("launches", "jobs", "ranks", "said", "state"),
    [
        ([launch()], [RUNS], [LIVE], RunState.COMPLETE, RunState.COMPLETE),
        ([], [], [], None, RunState.PLANNED), ([], [], [DEAD], None, RunState.ENDED),
        ([], [], [LIVE], RunState.INCOMPLETE, RunState.RUNNING),
        ([], [], [DEAD], RunState.INCOMPLETE, RunState.INCOMPLETE),
        ([launch()], [WAITS], [], None, RunState.PENDING), ([launch()], [WAITS, RUNS], [], None, RunState.RUNNING),
        ([launch()], [RUNS], [], RunState.INCOMPLETE, RunState.RUNNING),
        ([launch()], [SILENT], [], None, RunState.UNKNOWN), ([launch()], [SILENT], [LIVE], None, RunState.RUNNING),
        ([launch(launched=False, jobs={})], [], [DEAD], None, RunState.UNKNOWN),
        ([launch(launched=False, jobs={})], [], [LIVE], None, RunState.RUNNING),
        ([launch()], [OVER], [DEAD], RunState.INCOMPLETE, RunState.INCOMPLETE),
        ([launch()], [OVER], [DEAD, rank(fatal=True)], RunState.INCOMPLETE, RunState.FAILED),
        ([launch()], [OVER], [rank(fatal=True, attempt="earlier")], RunState.INCOMPLETE, RunState.INCOMPLETE),
        ([launch()], [OVER], [DEAD], None, RunState.FAILED),
        ([launch()], [OVER, job("CANCELLED by 7")], [DEAD], None, RunState.CANCELLED),
        ([launch(cancelled=True), launch()], [OVER], [DEAD], None, RunState.CANCELLED),
        ([launch("local")], [], [rank(state=RankState.DRAINED)], None, RunState.CANCELLED),
        ([launch()], [OVER], [rank(state=RankState.DRAINED)], None, RunState.FAILED),
        ([launch("local")], [], [rank(state=RankState.DRAINED, attempt="earlier")], None, RunState.FAILED),
    ],
)  # fmt: skip
def test_the_state_of_a_run_that_is_merged(launches: Any, jobs: Any, ranks: Any, said: Any, state: RunState) -> None:
    plan: Any = SimpleNamespace(kind=SimpleNamespace(has=lambda stage: stage == "merge"))
    named = {str(n): one for n, one in enumerate(jobs)}
    assert _state(plan, launches, named, ranks, None if said is None else merged(said)) == state


@pytest.mark.parametrize(
    ("ranks", "state"),
    [
        ([rank(), rank()], RunState.COMPLETE), ([rank()], RunState.FAILED), ([rank(), DEAD], RunState.FAILED),
        ([rank(), rank(), rank(state=RankState.DEAD, attempt="a before")], RunState.COMPLETE),
        ([rank(), rank(state=RankState.DRAINED)], RunState.INCOMPLETE),
        ([rank(), rank(attempt="earlier")], RunState.FAILED),
    ],
)  # fmt: skip
def test_a_script_is_complete_when_as_many_ranks_as_were_started_have_ended_well(ranks: Any, state: RunState) -> None:
    plan: Any = SimpleNamespace(kind=SimpleNamespace(has=lambda stage: False))
    assert _state(plan, [launch()], {"work": OVER}, ranks, None) == state


def test_a_merge_job_that_waits_is_no_work() -> None:
    plan: Any = SimpleNamespace(kind=SimpleNamespace(has=lambda stage: True))
    assert _state(plan, [launch()], {"work": OVER, "merge": WAITS}, [], None) == RunState.RUNNING
    assert _state(plan, [launch()], {"work": WAITS, "merge": RUNS}, [], None) == RunState.PENDING
    assert _state(plan, [launch()], {"work": OVER, "merge": job("CANCELLED")}, [], None) == RunState.FAILED
