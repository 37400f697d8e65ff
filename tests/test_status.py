from __future__ import annotations

import json
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hpcjobs.heartbeat import Heartbeat, Vitals
from hpcjobs.identity import Identity
from hpcjobs.merge import merge
from hpcjobs.paths import RunPaths
from hpcjobs.status import Status, read_status
from hpcjobs.submission import Launch, record_launch
from tests.runs import Ranks, hpcjobs, next_round, plan_run, records_in, run_ranks, wait_for

ROWS, SLOW = 97, {"engine": "dummy", "dummy_delay": 0.02}


def states(status: Status) -> dict[int, str]:
    return {rank.vitals.rank: rank.state for rank in status.ranks}


def local_launch(paths: RunPaths, number: int, alive: bool) -> None:
    """What submit records of a local start whose supervisor is this process, or one that is over."""
    supervisor = Identity.own() if alive else replace(Identity.own(), started="1")
    record_launch(paths, Launch(number, "local", {}, "1 node", 2, supervisor=supervisor.values()))


def test_planned(tmp_path: Path) -> None:
    status = read_status(plan_run(tmp_path / "run", ROWS))
    assert (status.state, status.over, status.done, status.rows) == ("planned", True, 0, ROWS)
    assert (status.ranks, status.notes, status.first_error, status.eta) == ([], [], None, None)


def test_running_by_hand_then_ended_then_complete(ram: Path) -> None:
    paths = plan_run(ram / "run", ROWS, model=SLOW, run={"heartbeat": 0.05})
    with Ranks(paths, 2) as ranks:
        ranks.start(0, 1)
        status = wait_for(lambda: found if (found := read_status(paths)).done > 5 else None, "some samples")
        assert (status.state, status.over) == ("running", False)
        assert states(status) == {0: "working", 1: "working"}
        assert 5 < status.done < ROWS
        assert status.rate > 0
        assert status.eta is not None
        assert 0 < status.eta < 60
        assert ranks.finish(0, 1) == [0, 0]
    status = read_status(paths)
    assert (status.state, status.done, states(status)) == ("ended", ROWS, {0: "done", 1: "done"})
    assert sum(rank.vitals.samples for rank in status.ranks) == ROWS
    merge(paths)
    status = read_status(paths)
    assert (status.state, status.exit_code(), status.done) == ("complete", 0, ROWS)
    assert json.loads(json.dumps(status.values()))["metrics"]["complete"] is True


def test_incomplete(ram: Path) -> None:
    paths = plan_run(ram / "run", ROWS)
    run_ranks(paths, 2)
    fullest = max(paths.journals(), key=lambda path: path.stat().st_size)
    lost = len(records_in(fullest))
    fullest.unlink()
    merge(paths)
    status = read_status(paths)
    assert (status.state, status.exit_code(), status.over, status.done) == ("incomplete", 3, True, ROWS - lost)


def test_running_and_failed_by_the_supervisor(ram: Path) -> None:
    paths = plan_run(ram / "run", ROWS)
    local_launch(paths, 0, alive=True)
    status = read_status(paths)
    assert (status.state, status.over) == ("running", False)
    local_launch(paths, 0, alive=False)
    status = read_status(paths)
    assert (status.state, status.over, status.exit_code()) == ("failed", True, 1)


def test_the_word_of_a_merge_before_the_last_start_is_old(ram: Path) -> None:
    paths = plan_run(ram / "run", ROWS)
    run_ranks(paths, 2)
    paths.journal("a", 1).unlink()
    missing = next_round(paths)
    local_launch(paths, 0, alive=True)
    status = read_status(paths)
    assert (status.state, status.metrics) == ("running", None)
    assert status.done == ROWS - len(missing), "the first round's samples are done"
    run_ranks(paths, 1, "local0t1")
    assert read_status(paths).done == ROWS
    merge(paths)
    assert read_status(paths).state == "complete"


@pytest.mark.parametrize("launched", [False, True])
def test_a_dead_rank_is_named(ram: Path, launched: bool) -> None:
    paths = plan_run(ram / "run", ROWS, model=SLOW, run={"heartbeat": 0.05})
    if launched:
        local_launch(paths, 0, alive=True)
    attempt = "local0t5"
    with Ranks(paths, 2, attempt) as ranks:
        ranks.start(0, 1)
        ranks.wait_for_record(0)
        ranks.stop_inside_chunk(1)
        wait_for(lambda: "working" in states(read_status(paths)).values(), "the first beat")
        ranks.signal(1, signal.SIGKILL)
        ranks.finish(1)
        status = read_status(paths)
        assert status.state == "running"
        assert states(status)[1] == "dead"
        dead = next(rank.vitals for rank in status.ranks if rank.vitals.rank == 1)
        assert status.notes == [
            f"rank 1 of attempt {attempt} on {dead.host} is dead, after at least {dead.samples} samples"
        ]
        assert not next(rank for rank in status.ranks if rank.vitals.rank == 1).live
        if launched:
            told = hpcjobs("status", paths.root)
            assert (told.returncode, status.notes[0] in told.stdout) == (0, True), told.stderr
        assert ranks.finish(0) == [0]
    assert read_status(paths).done == ROWS


def test_a_stopped_rank_is_silent_until_it_goes_on(ram: Path) -> None:
    paths = plan_run(ram / "run", ROWS, model=SLOW, run={"heartbeat": 0.1, "lease_timeout": 0.5})
    with Ranks(paths, 1) as ranks:
        ranks.start(0)
        ranks.stop_inside_chunk(0)
        status = wait_for(lambda: found if states(found := read_status(paths)) == {0: "silent"} else None, "silence")
        assert "rank 0 of attempt a" in status.notes[0]
        assert "is silent (no sign of life for" in status.notes[0]
        ranks.signal(0, signal.SIGCONT)
        assert ranks.finish(0) == [0]
    assert (states(read_status(paths)), read_status(paths).notes) == ({0: "done"}, [])


def test_what_live_ranks_have_finished_of_open_chunks_is_done(tmp_path: Path) -> None:
    paths = plan_run(tmp_path / "run", ROWS)
    told = Vitals(0, "a", "here", 1, Identity.own().values(), samples=3, open=3)
    with Heartbeat(paths.heartbeat("a", 0), told, 60):
        assert read_status(paths).done == 3
    assert read_status(paths).done == 0, "who takes the chunk over says what of it counts"


def test_a_rank_of_an_earlier_start_is_over(ram: Path) -> None:
    paths = plan_run(ram / "run", ROWS, model=SLOW)
    with Ranks(paths, 1, "local0t5") as ranks:
        ranks.start(0)
        ranks.stop_inside_chunk(0)
        local_launch(paths, 1, alive=True)
        assert states(read_status(paths)) == {0: "over"}


def test_the_first_error_is_told_with_rank_host_and_sample(ram: Path) -> None:
    paths = plan_run(ram / "run", ROWS)
    run_ranks(paths, 1)
    status = read_status(paths)
    host = status.ranks[0].vitals.host
    assert status.first_error is not None
    assert status.first_error.startswith(f"rank 0 on {host}: sample row-")
    assert "ZeroDivisionError" in status.first_error
    assert status.ranks[0].vitals.errors == 5


def test_looking_costs_little_and_changes_nothing(ram: Path) -> None:
    paths = plan_run(ram / "run", ROWS)
    run_ranks(paths, 2)
    before = {path: path.stat().st_mtime_ns for path in paths.root.rglob("*")}
    start = time.monotonic()
    read_status(paths)
    assert time.monotonic() - start < 10
    assert {path: path.stat().st_mtime_ns for path in paths.root.rglob("*")} == before
