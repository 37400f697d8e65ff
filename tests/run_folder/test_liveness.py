"""One judgement of who is alive: what status and the report say of the same run folder is the same."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.commands.status import read_status
from hpcjobs.config.resolve import read_config
from hpcjobs.report.activity import read_activities
from hpcjobs.run_folder.heartbeat import Vitals
from hpcjobs.run_folder.liveness import view_ranks
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity, process_start
from hpcjobs.run_folder.submission import Launch, read_launches, record_launch, together
from tests.runs import Ranks, plan_run, wait_for

ROWS, TIMEOUT, ATTEMPT = 9, 20.0, "local0t5"
ELSEWHERE = dataclasses.replace(Identity.own(), machine="another")


def planned(folder: Path, **run: Any) -> RunPaths:
    paths = plan_run(folder, ROWS, run={"heartbeat": 5.0, "lease_timeout": TIMEOUT} | run)
    supervisor = Identity.own().values()
    record_launch(paths, Launch(number=0, executor="local", jobs={}, shape="1 node", ranks=2, supervisor=supervisor))
    return paths


def beat(paths: RunPaths, who: Identity = ELSEWHERE, attempt: str = ATTEMPT, age: float = 0.0, **values: Any) -> None:
    """The heartbeat of a rank that has begun long ago and was heard last `age` seconds ago."""
    vitals, now = Vitals(rank=0, attempt=attempt, host="n1", world_size=1, identity=who.values()), time.time()
    vitals.started_at, vitals.beat_at = now - 1000, now - age
    paths.heartbeat(attempt, 0).write_text(json.dumps(dataclasses.asdict(vitals) | values))


def judged(paths: RunPaths) -> dict[tuple[str, int], tuple[str, bool]]:
    """(state, live) of each rank: the same in status, in the report, and in what both ask."""
    timeout, launches = read_config(paths.config).run.lease_timeout, together(read_launches(paths))
    views, status = (
        {(rank.vitals.attempt, rank.vitals.rank): (str(rank.state), rank.live) for rank in ranks}
        for ranks in (view_ranks(paths, launches, lambda: timeout), read_status(paths).ranks)
    )
    report = {(a.attempt, a.rank): (str(a.state), a.live) for a in read_activities(paths, timeout)[0]}
    assert views == status == report
    return status


def dead_process() -> Identity:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = process_start(process.pid)
    process.communicate(b"\n")
    assert started
    return dataclasses.replace(Identity.own(), pid=process.pid, started=started)


@pytest.mark.parametrize(
    ("word", "age", "attempt", "state", "live"),
    [
        ("working", 0, ATTEMPT, "working", True),
        ("waiting", TIMEOUT / 2, ATTEMPT, "waiting", True),
        ("resting", 0, ATTEMPT, "resting", True),
        ("working", 2 * TIMEOUT, ATTEMPT, "silent", False),
        ("resting", 2 * TIMEOUT, ATTEMPT, "silent", False),
        ("working", 0, "local7t5", "over", False),
    ],
)
def test_status_and_report_agree_on_a_rank_that_has_told_no_end(
    tmp_path: Path, word: str, age: float, attempt: str, state: str, live: bool
) -> None:
    paths = planned(tmp_path / "run")
    beat(paths, attempt=attempt, age=age, state=word)
    assert judged(paths) == {(attempt, 0): (state, live)}


@pytest.mark.parametrize("state", ["done", "drained", "failed", "dead", "evicted"])
@pytest.mark.parametrize("age", [0, 2 * TIMEOUT])
def test_status_and_report_agree_on_a_rank_that_has_ended(tmp_path: Path, state: str, age: float) -> None:
    paths = planned(tmp_path / "run")
    beat(paths, age=age, state=state, ended_at=time.time() - age, ended="ended")
    assert judged(paths) == {(ATTEMPT, 0): (state, False)}


@pytest.mark.parametrize("age", [0, 2 * TIMEOUT])
def test_status_and_report_agree_on_a_process_that_is_gone(tmp_path: Path, age: float) -> None:
    paths = planned(tmp_path / "run")
    beat(paths, dead_process(), age=age, state="working")
    assert judged(paths) == {(ATTEMPT, 0): ("dead", False)}


def test_they_agree_on_real_ranks_that_are_stopped_and_killed(ram: Path) -> None:
    model, lost = {"engine": "dummy", "dummy_delay": 0.02}, {("a", 0): ("silent", False), ("a", 1): ("dead", False)}
    paths = plan_run(ram / "run", 97, model=model, run={"heartbeat": 0.1, "lease_timeout": 1.0})
    with Ranks(paths, 2) as ranks:
        ranks.start(0, 1)
        ranks.stop_inside_chunk(0)
        ranks.stop_inside_chunk(1)
        ranks.signal(1, signal.SIGKILL)
        ranks.finish(1)
        wait_for(lambda: not any(rank.live for rank in read_status(paths).ranks), "both to be lost")
        assert judged(paths) == lost
        ranks.signal(0, signal.SIGCONT)
        assert ranks.finish(0) == [0]
    assert judged(paths) == {("a", 0): ("done", False), ("a", 1): ("dead", False)}


def test_they_agree_on_what_srun_has_seen(tmp_path: Path) -> None:
    paths = planned(tmp_path / "run")
    beat(paths, attempt="100.0.0", age=2 * TIMEOUT)
    record_launch(paths, Launch(number=1, executor="slurm", jobs={"work": "100"}, shape="1 node", ranks=1))
    (paths.logs / "100_0_log.out").write_text("srun: error: n1: task 0: Killed\n")
    timeout, launches = TIMEOUT, read_launches(paths)
    (view,), ((activity,), _) = view_ranks(paths, launches, lambda: timeout), read_activities(paths, timeout)
    assert (view.state, view.live, view.vitals.ended) == ("dead", False, "srun: Killed")
    assert (activity.state, activity.live, activity.ended) == ("dead", False, "srun: Killed")
