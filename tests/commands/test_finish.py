"""The post-job step: who judges, and whether an incomplete run is started again by itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.commands.auto_resume import fatal_errors, may_go_on
from hpcjobs.commands.finish import finish_run
from hpcjobs.distributed.drain import PREEMPTION
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.heartbeat import Heartbeat, Vitals, read_heartbeat, write_heartbeat
from hpcjobs.run_folder.ledger.chunks import ChunkList
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity
from hpcjobs.run_folder.rank_state import RankState
from hpcjobs.run_folder.submission import Launch, read_launches, record_launch
from tests.fake_slurm import FakeSlurm
from tests.runs import plan_run, record_of, settle_by_hand, write_journal

ROWS = 97
IN_TIME, BY_SIGNAL = "drained: the time limit", "drained: ended by SIGTERM: cancelled, preempted or out of time"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{fake.bin}:/usr/bin:/bin")
    return fake


def launched(paths: RunPaths, number: int, automatic: bool = False, **more: Any) -> Launch:
    """A start whose work is job 100 + number."""
    jobs = {"work": str(100 + number), "merge": str(200 + number)}
    launch = Launch(
        number=number,
        executor="slurm",
        jobs=more.pop("jobs", jobs),
        shape="1 node",
        ranks=1,
        automatic=automatic,
        **more,
    )
    record_launch(paths, launch)
    return launch


def ranks_of(paths: RunPaths, number: int, samples: int = 20, ended: str | None = None, **more: Any) -> None:
    """What a rank of a start leaves: its heartbeat, and a journal where it has made samples."""
    attempt = f"{100 + number}.0.0"
    vitals = Vitals(
        rank=0, attempt=attempt, host="n1", world_size=1, identity=Identity.own().values(), samples=samples, **more
    )
    path = paths.heartbeat(attempt, 0)
    with Heartbeat(path, vitals, 60):
        pass
    vitals.state, vitals.ended = RankState.DRAINED if ended else RankState.DONE, ended
    write_heartbeat(path, vitals)
    write_journal(paths, [record_of(0, 0, attempt=attempt)] * bool(samples), f"{attempt}-0.jsonl")


def plan(folder: Path, tries: int = 1) -> RunPaths:
    return plan_run(folder, ROWS, run={"auto_resume": tries}, cluster={"executor": "slurm"})


@pytest.mark.parametrize(
    ("tries", "automatic", "goes_on"),
    [(0, [], False), (1, [], True), (1, [True], False), (2, [True], True), (2, [True, True], False),
     (1, [True, False], True)],
)  # fmt: skip
def test_tries_are_counted_since_the_last_start_by_hand(
    ram: Path, fake: FakeSlurm, tries: int, automatic: list[bool], goes_on: bool
) -> None:
    paths = plan(ram / "run", tries)
    for number, by_itself in enumerate([False, *automatic]):
        launched(paths, number, by_itself)
    ranks_of(paths, len(automatic))
    assert may_go_on(paths) is goes_on


@pytest.mark.parametrize(
    ("last", "goes_on"),
    [
        ({"samples": 0}, False), ({"samples": 1}, True), ({"samples": 50, "fatal": True}, False),
        ({"samples": 50, "ended": IN_TIME}, True), ({"samples": 50, "ended": BY_SIGNAL}, True),
    ],
    ids=["no progress", "little progress", "fatal", "time limit", "preempted"],
)  # fmt: skip
def test_it_goes_on_where_the_next_start_may_be_better(
    ram: Path, fake: FakeSlurm, last: dict[str, Any], goes_on: bool
) -> None:
    paths = plan(ram / "run")
    launched(paths, 0)
    ranks_of(paths, 0, **last)
    assert may_go_on(paths) is goes_on


@pytest.mark.parametrize(
    ("how", "job", "automatic", "goes_on"),
    [
        ({"signal": "SIGKILL"}, "FAILED", False, True), ({"signal": "SIGKILL"}, "FAILED", True, False),
        ({"signal": "SIGKILL"}, "OUT_OF_MEMORY", False, False), ({"signal": "SIGSEGV"}, "FAILED", False, False),
        ({"first_error": "LostRankError: rank 1 (no sign of life for 9 s) was lost"}, "NODE_FAIL", False, True),
        ({"first_error": "ValueError: no such column"}, "FAILED", False, False),
        ({"signal": "SIGKILL", "state": RankState.FAILED}, "FAILED", False, False),
    ],
)  # fmt: skip
def test_a_rank_that_was_killed_before_it_did_anything_is_tried_once_more(
    ram: Path, fake: FakeSlurm, how: dict[str, Any], job: str, automatic: bool, goes_on: bool
) -> None:
    """An error would come again, and so would the out-of-memory killer."""
    paths = plan(ram / "run", tries=3)
    for number in range(1 + automatic):
        launched(paths, number, number > 0)
        ranks_of(paths, number, samples=0)
    path = paths.heartbeat(f"{100 + automatic}.0.0", 0)
    vitals = read_heartbeat(path)
    assert vitals
    write_heartbeat(path, dataclasses.replace(vitals, **{"state": RankState.DEAD} | how))
    fake.answer("sacct", f"100|{job}|n1|0:9\n101|{job}|n1|0:9\n200|RUNNING|n1|0:0\n")
    assert may_go_on(paths) is goes_on


@pytest.mark.parametrize(
    ("samples", "ended", "goes_on"),
    [
        (20, IN_TIME, True), (5, IN_TIME, True), (4, IN_TIME, False), (20, f"drained: {PREEMPTION}", True),
        (20, BY_SIGNAL, False), (20, None, False),
    ],
    ids=["a fair share", "just enough", "hardly any", "preempted and warned", "ended by SIGTERM", "failed"],
)  # fmt: skip
def test_a_start_that_ran_out_of_time_is_no_try(
    ram: Path, fake: FakeSlurm, samples: int, ended: str | None, goes_on: bool
) -> None:
    paths = plan(ram / "run")
    launched(paths, 0)
    for number in (1, 2, 3):
        launched(paths, number, automatic=True)
        ranks_of(paths, number, samples, ended)
    assert may_go_on(paths) is goes_on


@pytest.mark.parametrize(
    ("work", "goes_on"), [("CANCELLED by 0", False), ("FAILED", True), ("TIMEOUT", True), ("COMPLETED", True)]
)
def test_what_somebody_has_cancelled_is_not_started_again(ram: Path, fake: FakeSlurm, work: str, goes_on: bool) -> None:
    paths = plan(ram / "run")
    launched(paths, 0)
    ranks_of(paths, 0)
    fake.answer("sacct", f"100|{work}|n1|0:0\n200|RUNNING|n1|0:0\n")
    assert may_go_on(paths) is goes_on
    fake.fail("squeue", "slurm_load_jobs error: Unable to contact slurm controller\n")
    assert may_go_on(paths), "not known is not cancelled"


def test_ranks_that_joined_are_no_start_of_their_own_and_their_work_counts(ram: Path, fake: FakeSlurm) -> None:
    paths = plan(ram / "run")
    launched(paths, 0)
    launched(paths, 1, joined=True, jobs={"join": "101", "merge": "201"})
    ranks_of(paths, 0, samples=0)
    assert not may_go_on(paths)
    ranks_of(paths, 1)
    assert may_go_on(paths)


def test_a_run_of_the_debugger_or_by_hand_is_not_started_again(ram: Path, fake: FakeSlurm) -> None:
    paths = plan(ram / "run")
    write_journal(paths, [record_of(0, 0)])
    assert not may_go_on(paths)
    record_launch(paths, Launch(number=0, executor="debug", jobs={}, shape="1 node", ranks=1))
    assert not may_go_on(paths)


def test_fatal_errors_are_those_of_these_starts(ram: Path) -> None:
    paths = plan(ram / "run")
    first, second = launched(paths, 0), launched(paths, 1)
    ranks_of(paths, 0, fatal=True, first_error="DiskFullError: no room")
    assert fatal_errors(paths, [first]) == ["rank 0 on n1: DiskFullError: no room"]
    assert fatal_errors(paths, [second]) == []


def finished(paths: RunPaths, number: int | None) -> int:
    """The exit code of a merge job."""
    try:
        finish_run(str(paths.root), number)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize(
    ("later", "judges"),
    [
        (None, True), ({"jobs": {"join": "101", "merge": "201"}}, False), ({"jobs": {"join": "101"}}, True),
        ({"jobs": {"supervisor": "5"}, "supervisor": {"machine": "m", "pid": 5, "started": "1"}}, False),
    ],
    ids=["alone", "a merge job", "no merge job yet", "a supervisor"],
)  # fmt: skip
def test_the_last_start_that_has_a_merge_judges(
    ram: Path, fake: FakeSlurm, later: dict[str, Any] | None, judges: bool
) -> None:
    paths = plan(ram / "run")
    write_journal(paths, settle_by_hand(paths))
    launched(paths, 0)
    if later:
        launched(paths, 1, joined=True, **later)
    assert finished(paths, 0) == 0
    assert paths.metrics.exists() is judges
    assert finished(paths, 1) == 0
    assert read_json(paths.metrics)["complete"] is True


def test_what_is_missing_ends_with_three_and_is_started_again(ram: Path, fake: FakeSlurm) -> None:
    paths = plan(ram / "run")
    launched(paths, 0)
    attempt = "100.0.0"
    records = settle_by_hand(paths, attempt)
    lost = set(ChunkList.read(paths.chunks(0))[0])
    kept = [record for record in records if record.index not in lost]
    write_journal(paths, kept, f"{attempt}-0.jsonl")
    assert finished(paths, 0) == 3
    assert [launch.automatic for launch in read_launches(paths)] == [False, True]
    assert (paths.rounds(), read_launches(paths)[1].round) == ([0, 1], 1)
    assert len(fake.calls("sbatch")) == 2
    assert finished(paths, 0) == 0, "the one that came after judges"
    assert len(fake.calls("sbatch")) == 2
