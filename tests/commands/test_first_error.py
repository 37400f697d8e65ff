from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.commands.first_error import first_error
from hpcjobs.commands.status import read_status
from hpcjobs.merge.eval import merge
from hpcjobs.run_folder.files import read_json, write_json
from hpcjobs.run_folder.heartbeat import read_heartbeats
from hpcjobs.run_folder.metrics_file import MetricsFile
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.submission import Launch, read_launches, record_launch
from tests.commands.test_status import local_launch, rank_told
from tests.runs import next_round, plan_run, run_ranks

BROKE = "RuntimeError: CUDA error: the device is gone"


def failed(paths: RunPaths, attempt: str, error: str = BROKE, **more: Any) -> None:
    """A rank that has ended with an error."""
    rank_told(paths, 0, attempt, state="failed", ended_at=time.time(), first_error=error, **more)


@pytest.fixture
def resumed(ram: Path) -> RunPaths:
    """A run without errors of samples whose first start has lost its ranks, and whose second one has done the rest."""
    paths = plan_run(ram / "run", 17)
    local_launch(paths, 0, alive=False)
    run_ranks(paths, 1, "local0t1")
    failed(paths, "local0t2")
    rank_told(paths, 1, "local0t2", state="dead", ended="ended by SIGKILL", ended_at=time.time())
    paths.journal("local0t1", 0).unlink()
    next_round(paths)
    return paths


def test_the_error_of_an_earlier_start_is_over_once_the_run_is_complete(resumed: RunPaths) -> None:
    assert BROKE in (read_status(resumed).first_error or ""), "it is the only start"
    local_launch(resumed, 1, alive=False)
    run_ranks(resumed, 1, "local1t1")
    status = read_status(resumed)
    assert status.state == "failed", "nothing was merged"
    assert status.first_error == f"rank 0 on n1, of an earlier start: {BROKE}"
    merge(resumed)
    status = read_status(resumed)
    assert (status.state, status.first_error, status.notes) == ("complete", None, [])


def test_a_later_starts_error_comes_first_and_stands(resumed: RunPaths) -> None:
    local_launch(resumed, 1, alive=False)
    failed(resumed, "local1t1", "ValueError: no such column")
    assert read_status(resumed).first_error == "rank 0 on n1: ValueError: no such column"
    run_ranks(resumed, 1, "local1t2")
    merge(resumed)
    status = read_status(resumed)
    assert (status.state, status.first_error) == ("complete", "rank 0 on n1: ValueError: no such column")


def test_the_error_of_a_sample_stands_as_long_as_it_is_the_result(ram: Path) -> None:
    paths = plan_run(ram / "run", 40, run={"max_errors": 0.5})
    local_launch(paths, 0, alive=False)
    run_ranks(paths, 1, "local0t1")
    merge(paths)
    local_launch(paths, 1, alive=False)
    merge(paths)
    status = read_status(paths)
    assert status.state == "complete"
    assert "of an earlier start: sample row-18: " in (status.first_error or "")
    values = read_json(paths.metrics)
    values["counts"] |= {"errors": 0}  # what `resume --errors` comes to
    write_json(paths.metrics, values)
    assert read_status(paths).first_error is None


def test_a_metrics_error_stands_until_it_is_scored_again(ram: Path) -> None:
    paths = plan_run(ram / "run", 3)
    local_launch(paths, 0, alive=False)
    local_launch(paths, 1, alive=False)
    failed(paths, "local0t1", "sample a: TypeError", metric_errors=1)
    run_ranks(paths, 1, "local1t1")
    merge(paths)
    assert read_status(paths).first_error is None
    values = read_json(paths.metrics)
    values["counts"] |= {"metric_errors": 1}
    write_json(paths.metrics, values)
    ranks, merged = read_status(paths).ranks, MetricsFile.read(paths.metrics)
    told = first_error(ranks, read_launches(paths)[1:], merged)
    assert told == "rank 0 on n1, of an earlier start: sample a: TypeError"


def test_a_program_that_has_ended_well_at_last_has_no_error(ram: Path) -> None:
    paths = plan_run(ram / "run", 3)
    values = read_json(paths.plan) | {"job": "script", "argv": ["prog"]}
    write_json(paths.plan, values)
    record_launch(paths, Launch(number=0, executor="local", jobs={}, shape="1 node", ranks=1))
    failed(paths, "local0t1")
    assert BROKE in (read_status(paths).first_error or "")
    rank_told(paths, 0, "local0t2", state="done", ended_at=time.time(), started_at=time.time() + 60)
    assert len(read_heartbeats(paths.heartbeats)) == 2
    status = read_status(paths)
    assert (status.state, status.first_error) == ("complete", None)
