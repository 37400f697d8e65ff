from __future__ import annotations

import json
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.commands.status import Status, read_status
from hpcjobs.merge.eval import merge
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.heartbeat import Heartbeat, Vitals, write_heartbeat
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity
from hpcjobs.run_folder.submission import Launch, record_launch
from tests.fake_slurm import FakeSlurm
from tests.runs import Ranks, hpcjobs, next_round, plan_run, records_in, run_ranks, wait_for

ROWS, SLOW = 97, {"engine": "dummy", "dummy_delay": 0.02}


def states(status: Status) -> dict[int, str]:
    return {rank.vitals.rank: rank.state for rank in status.ranks}


def local_launch(paths: RunPaths, number: int, alive: bool) -> None:
    """What submit records of a local start whose supervisor is this process, or one that is over."""
    supervisor = Identity.own() if alive else replace(Identity.own(), started="1")
    record_launch(
        paths, Launch(number=number, executor="local", jobs={}, shape="1 node", ranks=2, supervisor=supervisor.values())
    )


def test_planned(tmp_path: Path) -> None:
    status = read_status(plan_run(tmp_path / "run", ROWS))
    assert (status.state, status.over, status.done, status.rows) == ("planned", True, 0, ROWS)
    assert (status.ranks, status.notes, status.first_error, status.eta) == ([], [], None, None)


def of_both_ranks(status: Status) -> Status | None:
    return status if status.done > 5 and len(status.ranks) == 2 else None


def test_running_by_hand_then_ended_then_complete(ram: Path) -> None:
    paths = plan_run(ram / "run", ROWS, model=SLOW, run={"heartbeat": 0.05})
    with Ranks(paths, 2) as ranks:
        ranks.start(0, 1)
        status = wait_for(lambda: of_both_ranks(read_status(paths)), "some samples of both")
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


def test_a_merge_of_a_live_run_does_not_freeze_its_progress(ram: Path) -> None:
    paths = plan_run(ram / "run", ROWS, model=SLOW | {"dummy_delay": 2.0}, run={"heartbeat": 0.05})
    with Ranks(paths, 2) as ranks:
        ranks.start(0, 1)
        wait_for(lambda: read_status(paths).done > 1, "some samples")
        looked = hpcjobs("merge", paths.root)
        assert looked.returncode == 3
        assert f"next: hpcjobs status {paths.root}\n" in looked.stderr
        merged = read_json(paths.metrics)["counts"]["accepted"]
        status = wait_for(lambda: found if (found := read_status(paths)).done > merged else None, "more samples")
        assert (status.state, status.rows) == ("running", ROWS)
    assert read_status(paths).done == merged
    assert f"next: hpcjobs resume {paths.root}\n" in hpcjobs("merge", paths.root).stderr


def test_running_and_failed_by_the_supervisor(ram: Path) -> None:
    paths = plan_run(ram / "run", ROWS)
    local_launch(paths, 0, alive=True)
    status = read_status(paths)
    assert (status.state, status.over) == ("running", False)
    local_launch(paths, 1, alive=False)
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
    told = Vitals(rank=0, attempt="a", host="here", world_size=1, identity=Identity.own().values(), samples=3, open=3)
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


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{fake.bin}:/usr/bin:/bin")
    return fake


def queued(paths: RunPaths, number: int = 0, **more: Any) -> None:
    """A start of jobs 100 and 101, 102 and 103..."""
    first = 100 + 2 * number
    jobs = {"join" if more.get("joined") else "work": str(first), "merge": str(first + 1)}
    record_launch(paths, Launch(number=number, executor="slurm", jobs=jobs, shape="1 node", ranks=2, **more))


def rank_told(paths: RunPaths, rank: int = 0, attempt: str = "100.0.0", **more: Any) -> None:
    """The heartbeat of a rank on another machine."""
    elsewhere = replace(Identity.own(), machine="another")
    values: dict[str, Any] = {"state": "working", "beat_at": time.time()}
    vitals = Vitals(rank=rank, attempt=attempt, host="n1", world_size=2, identity=elsewhere.values(), **values | more)
    path = paths.heartbeat(attempt, rank)
    path.touch()
    write_heartbeat(path, vitals)


DOWN = "slurm_load_jobs error: Unable to contact slurm controller\n"


@pytest.mark.parametrize(
    ("squeue", "sacct", "state", "over", "code"),
    [
        ("100|PENDING|Priority|\n101|PENDING|Dependency|\n", "", "pending", False, 1),
        ("100|RUNNING|None|n1\n101|PENDING|Dependency|\n", "", "running", False, 1),
        ("100|COMPLETED|None|n1\n101|RUNNING|None|n1\n", "", "running", False, 1),
        ("100|CANCELLED|None|n1\n101|CANCELLED|None|\n", "", "cancelled", True, 1),
        ("", "100|CANCELLED by 1000|n1|0:15\n101|COMPLETED|n1|0:0\n", "cancelled", True, 1),
        ("100|FAILED|None|n1\n101|FAILED|None|n1\n", "", "failed", True, 1),
        ("", "", "failed", True, 1),
        (None, "", "unknown", False, 1),
    ],
)
def test_the_state_that_slurm_tells(
    tmp_path: Path, fake: FakeSlurm, squeue: str | None, sacct: str, state: str, over: bool, code: int
) -> None:
    paths = plan_run(tmp_path / "run", ROWS)
    queued(paths)
    fake.answer("sacct", sacct)
    fake.answer("squeue", squeue or "")
    if squeue is None:
        fake.fail("squeue", DOWN)
    status = read_status(paths)
    assert (status.state, status.over, status.exit_code()) == (state, over, code)
    assert status.going is not over


def test_where_slurm_does_not_answer_live_ranks_do(tmp_path: Path, fake: FakeSlurm) -> None:
    paths = plan_run(tmp_path / "run", ROWS)
    queued(paths)
    fake.fail("squeue", DOWN)
    rank_told(paths)
    status = read_status(paths)
    assert (status.state, status.over, states(status)) == ("running", False, {0: "working"})
    assert "Unable to contact" in status.notes[0]
    assert {job.source for job in status.jobs.values()} == {"unreachable"}
    assert [job.job_id for job in status.jobs.values()] == ["100", "101"], "their ids are known all the same"


def test_what_the_ranks_guard_has_told_stands_with_its_signal(tmp_path: Path, fake: FakeSlurm) -> None:
    paths = plan_run(tmp_path / "run", ROWS)
    queued(paths)
    fake.answer("squeue", "100|RUNNING|None|n1\n101|PENDING|Dependency|\n")
    rank_told(paths, 0, state="dead", signal="SIGKILL", ended="ended by SIGKILL", ended_at=time.time(), samples=7)
    rank_told(paths, 1, state="drained", ended="drained: the time limit", ended_at=time.time())
    status = read_status(paths)
    assert states(status) == {0: "dead", 1: "drained"}
    assert status.notes == ["rank 0 of attempt 100.0.0 on n1 is dead (ended by SIGKILL), after at least 7 samples"]
    assert not any(rank.live for rank in status.ranks)
    assert status.values()["ranks"][0]["signal"] == "SIGKILL"


def test_where_the_guard_has_died_too_srun_has_seen_it(tmp_path: Path, fake: FakeSlurm) -> None:
    paths = plan_run(tmp_path / "run", ROWS)
    queued(paths)
    fake.answer("squeue", "100|RUNNING|None|n1\n101|PENDING|Dependency|\n")
    for rank in (0, 1):
        rank_told(paths, rank, beat_at=time.time() - 1000)
    assert states(read_status(paths)) == {0: "silent", 1: "silent"}
    (paths.logs / "100_0_log.out").write_text("srun: error: n1: task 1: Killed\n")
    status = read_status(paths)
    assert states(status) == {0: "silent", 1: "dead"}
    assert [note for note in status.notes if "srun: Killed" in note] == [
        "rank 1 of attempt 100.0.0 on n1 is dead (srun: Killed), after at least 0 samples"
    ]


def test_srun_does_not_contradict_a_rank_that_has_told_its_end(tmp_path: Path, fake: FakeSlurm) -> None:
    paths = plan_run(tmp_path / "run", ROWS)
    queued(paths)
    rank_told(paths, 0, state="dead", ended="ended by SIGSEGV", ended_at=time.time())
    rank_told(paths, 1, state="done", ended_at=time.time())
    rank_told(paths, 2, beat_at=time.time() - 1000)
    (paths.logs / "100_0_log.out").write_text("srun: error: n1: tasks 0-1: Killed\n")
    status = read_status(paths)
    assert states(status) == {0: "dead", 1: "done", 2: "silent"}
    assert len([note for note in status.notes if "(ended by SIGSEGV)" in note]) == 1
    assert not [note for note in status.notes if "srun: " in note]


def test_ranks_that_have_joined_are_of_the_run_and_the_newest_merge_is_its_own(tmp_path: Path, fake: FakeSlurm) -> None:
    paths = plan_run(tmp_path / "run", ROWS)
    queued(paths)
    queued(paths, 1, joined=True)
    fake.answer("squeue", "100|COMPLETED|None|n1\n101|CANCELLED|None|\n102|RUNNING|None|n2\n103|PENDING|Dependency|\n")
    rank_told(paths)
    rank_told(paths, attempt="102.0.0")
    rank_told(paths, 1, attempt="99.0.0")
    status = read_status(paths)
    assert {kind: job.job_id for kind, job in status.jobs.items()} == {"work": "100", "join": "102", "merge": "103"}
    assert sorted(rank.state for rank in status.ranks) == ["over", "working", "working"]
    assert status.state == "running"


def test_what_a_full_disk_has_ended_is_failed_though_it_was_merged(ram: Path) -> None:
    paths = plan_run(ram / "run", ROWS)
    local_launch(paths, 0, alive=False)
    merge(paths)
    assert read_status(paths).state == "incomplete"
    rank_told(paths, 0, "local0t5", state="failed", fatal=True, ended_at=time.time(), first_error="DiskFullError: full")
    status = read_status(paths)
    assert (status.state, status.exit_code()) == ("failed", 1)
    assert status.first_error == "rank 0 on n1: DiskFullError: full"


def test_a_local_run_whose_ranks_were_asked_to_end_is_cancelled(ram: Path) -> None:
    paths = plan_run(ram / "run", ROWS)
    local_launch(paths, 0, alive=False)
    rank_told(paths, 0, "local0t5", state="drained", ended_at=time.time())
    assert read_status(paths).state == "cancelled"


def test_a_journal_and_a_ledger_with_bad_bytes_are_told_before_the_merge_is(ram: Path) -> None:
    paths = plan_run(ram / "run", ROWS)
    run_ranks(paths, 1)
    journal = paths.journal("a", 0)
    with journal.open("ab") as file:
        file.write(b'{"half": ')  # a crash does that
    assert read_status(paths).notes == []
    content = journal.read_bytes()
    second = content.index(b"\n") + 1
    journal.write_bytes(content[: second + 3] + b"\xff\0" + content[second + 5 :])
    [note] = read_status(paths).notes
    assert note.startswith(f"{journal}: broken record at offset {second}: ")
    journal.write_bytes(content)
    done = paths.round(0) / "3.done"
    values = done.read_bytes()
    for damage in (values[:-5], b"[]", b"\xff" + values):
        done.write_bytes(damage)
        [note] = read_status(paths).notes
        assert note.startswith(f"{done}: broken claim file: ")
        assert note.endswith(f"next: hpcjobs merge {paths.root}")
    done.write_bytes(values)
    merge(paths)
    journal.write_bytes(b"\xff\n")
    assert (read_status(paths).state, read_status(paths).notes) == ("complete", []), "its results are there"
