from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from hpcjobs.commands.status import read_status
from hpcjobs.launch.slurm import clean_environment
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity
from hpcjobs.run_folder.submission import read_launches
from tests.runs import (
    DEADLINE,
    cancelled_at_end,
    hpcjobs,
    missing_lines,
    outcome,
    plan_run,
    process_state,
    rank_env,
    records_in,
    said,
    submit,
    supervised,
    undisturbed,
    vitals_of,
    wait_for,
)

ROWS, SLOW = 97, {"engine": "dummy", "dummy_delay": 0.03}


def test_it_runs_all_ranks_and_merges_though_one_is_killed(ram: Path) -> None:
    paths = plan_run(ram / "run", ROWS, model=SLOW, cluster={"executor": "local", "ntasks_per_node": 3})
    with supervised(paths) as supervisor:
        vitals_of(paths, 0)
        kill(paths, 1)
        assert supervisor.wait(DEADLINE) == 0
    status = read_status(paths)
    assert status.state == "complete"
    assert {rank.vitals.rank: rank.state for rank in status.ranks} == {0: "done", 1: "dead", 2: "done"}
    assert {rank.vitals.attempt for rank in status.ranks} == {f"local0t{supervisor.pid}"}
    assert len({rank.vitals.identity["pid"] for rank in status.ranks}) == 3
    assert (paths.results.read_bytes(), said(paths)) == undisturbed(ROWS)


def test_without_anybody_to_take_over_it_ends_incomplete(ram: Path) -> None:
    """Static shards: what the killed rank had not done is named, and the exit code says so."""
    static, two = (
        {"heartbeat": 0.2, "sharding": "static", "auto_resume": 0},
        {"executor": "local", "ntasks_per_node": 2},
    )
    paths = plan_run(ram / "run", ROWS, model=SLOW, run=static, cluster=two)
    with supervised(paths) as supervisor:
        vitals_of(paths, 0)
        kill(paths, 1)
        assert supervisor.wait(DEADLINE) == 3
    made = {record.index for path in paths.journals() for record in records_in(path)}
    assert set(missing_lines(paths)) == set(range(ROWS)) - made != set()
    assert (read_status(paths).state, read_status(paths).exit_code()) == ("incomplete", 3)
    assert said(paths)["complete"] is False


def kill(paths: RunPaths, rank: int) -> None:
    """SIGKILL a rank that has begun its work."""
    victim = Identity(**vitals_of(paths, rank).identity)
    os.kill(victim.pid, signal.SIGKILL)
    wait_for(victim.is_dead, f"the end of rank {rank}")
    assert process_state(victim.pid) in ("", "Z")


def test_the_worker_command_is_the_same_rank(ram: Path) -> None:
    """`python -m hpcjobs.worker RUN`, as hand-written scripts start it."""
    paths = plan_run(ram / "run", 7)
    command = [sys.executable, "-m", "hpcjobs.worker", str(paths.root)]
    processes = [subprocess.Popen(command, env=clean_environment() | rank_env(rank, 2, "hand")) for rank in range(2)]
    assert [process.wait(DEADLINE) for process in processes] == [0, 0]
    assert [path.name for path in paths.journals()] == ["hand-0.jsonl", "hand-1.jsonl"]
    indexes = [record.index for path in paths.journals() for record in records_in(path)]
    assert sorted(indexes) == list(range(7))


def test_what_is_left_is_started_again_by_itself(ram: Path) -> None:
    """Static shards, so that nobody takes over what the killed rank leaves: the next start runs it."""
    static, two = {"heartbeat": 0.2, "sharding": "static"}, {"executor": "local", "ntasks_per_node": 2}
    paths = plan_run(ram / "run", ROWS, model=SLOW, run=static, cluster=two)
    with supervised(paths) as supervisor:
        vitals_of(paths, 0)
        kill(paths, 1)
        assert supervisor.wait(DEADLINE) == 3
        wait_for(lambda: read_status(paths).state == "complete", "the second start to complete the run")
    launches = read_launches(paths)
    assert [launch.automatic for launch in launches] == [False, True]
    assert outcome(paths)[1:] == undisturbed(ROWS)


def test_a_start_that_finished_nothing_is_not_repeated(ram: Path) -> None:
    paths = plan_run(ram / "run", ROWS, run={"heartbeat": 0.2}, cluster={"executor": "local", "ntasks_per_node": 2})
    paths.data.unlink()  # every rank fails at once
    with supervised(paths) as supervisor:
        assert supervisor.wait(DEADLINE) != 0
    assert len(read_launches(paths)) == 1
    assert read_status(paths).state in ("failed", "incomplete")


def test_ranks_that_join_share_the_work_and_one_merge_judges(ram: Path) -> None:
    paths = submit(ram / "run", ROWS, 1, model={"engine": "dummy", "dummy_delay": 0.12}, run={"heartbeat": 0.2})
    with cancelled_at_end(paths):
        vitals_of(paths, 0)
        joined = hpcjobs("join", paths.root, "--ntasks-per-node", "1")
        assert joined.returncode == 0, joined.stderr
        wait_for(lambda: read_status(paths).state == "complete", "the end")
        wait_for(lambda: not read_status(paths).going, "the end of both supervisors")
        status = read_status(paths)
    first, second = read_launches(paths)
    assert [(one.joined, one.automatic, one.round, one.ranks) for one in (first, second)] == [
        (False, False, 0, 1), (True, False, 0, 1),
    ]  # fmt: skip
    assert paths.rounds() == [0]
    made = {rank.vitals.attempt.partition("t")[0]: rank.vitals.samples for rank in status.ranks}
    assert made.keys() == {"local0", "local1"}
    assert min(made.values()) > 0, "one of them had nothing to do"
    assert sum(made.values()) == ROWS
    assert [rank.state for rank in status.ranks] == ["done", "done"]
    assert "start 1 of this run has come after: its merge judges" in (paths.logs / "supervisor-0.log").read_text()
    assert "its merge judges" not in (paths.logs / "supervisor-1.log").read_text()
    assert (paths.results.read_bytes(), said(paths)) == undisturbed(ROWS)
    late = hpcjobs("join", paths.root)
    assert late.returncode == 2
    assert "is not going on, it is complete: nothing is left for more ranks" in late.stderr
