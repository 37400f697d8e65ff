from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.commands import cancel as cancel_module
from hpcjobs.commands.cancel import cancel
from hpcjobs.commands.status import read_status
from hpcjobs.run_folder.heartbeat import read_heartbeats
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity, process_start
from hpcjobs.run_folder.submission import Launch, read_launches, record_launch
from tests.runs import (
    cancelled_at_end,
    hpcjobs,
    plan_run,
    process_state,
    records_in,
    said,
    submit,
    supervised,
    undisturbed,
    vitals_of,
    wait_for,
)

ROWS, SLOW = 97, {"engine": "dummy", "dummy_delay": 0.08}


def identities(paths: RunPaths) -> list[Identity]:
    """The supervisor and all ranks of a run."""
    ranks = [Identity(**vitals.identity) for vitals in read_heartbeats(paths.heartbeats)]
    return [Identity(**read_launches(paths)[-1].supervisor), *ranks]


def test_cancel_ends_the_ranks_and_resume_goes_on_from_there(ram: Path) -> None:
    paths = submit(ram / "run", ROWS, 2, model=SLOW)
    with cancelled_at_end(paths):
        for rank in (0, 1):
            vitals_of(paths, rank)
        assert read_status(paths).state == "running"
        start = time.monotonic()
        told = hpcjobs("cancel", paths.root)
        assert time.monotonic() - start < cancel_module._GRACE_SECONDS, "they were asked in vain"
        assert told.returncode == 0, told.stderr
        assert "local ranks" in told.stdout
        assert len(identities(paths)) == 3
        assert all(identity.is_dead() for identity in identities(paths))
        status = read_status(paths)
        assert (status.state, status.exit_code()) == ("cancelled", 1)
        assert {rank.vitals.state for rank in status.ranks} == {"drained"}
        assert all(str(rank.vitals.ended).startswith("drained: ended by SIGTERM") for rank in status.ranks)
        again = hpcjobs("cancel", paths.root)
        assert (again.returncode, again.stdout) == (0, "cancelled: nothing was running\n")

        before = {record.index for path in paths.journals() for record in records_in(path)}
        assert 0 < len(before) < ROWS
        fast = paths.config.read_text().replace("dummy_delay: 0.08", "dummy_delay: 0.0")
        paths.config.write_text(fast)
        resumed = hpcjobs("resume", paths.root, "--ntasks-per-node", "3", "--wait", "--yes")
        assert resumed.returncode == 0, resumed.stderr
    assert (paths.results.read_bytes(), said(paths)) == undisturbed(ROWS)
    indexes = [record.index for path in paths.journals() for record in records_in(path)]
    assert sorted(indexes) == list(range(ROWS)), "a finished sample was lost, or run again"
    assert len(read_launches(paths)) == 2


def test_ranks_that_outlived_their_supervisor_are_ended(ram: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the one that is stopped and does not listen to SIGTERM."""
    monkeypatch.setattr(cancel_module, "_GRACE_SECONDS", 1.0)
    two = {"executor": "local", "ntasks_per_node": 2}
    paths = plan_run(ram / "run", ROWS, model=SLOW, run={"heartbeat": 0.2}, cluster=two)
    with supervised(paths) as supervisor:
        ranks = [Identity(**vitals_of(paths, rank).identity) for rank in (0, 1)]
        supervisor.kill()
        supervisor.wait()
        os.kill(ranks[1].pid, signal.SIGSTOP)
        wait_for(lambda: process_state(ranks[1].pid) == "T", "the stop")
        assert not any(rank.is_dead() for rank in ranks)
        assert cancel(paths)
        for rank in ranks:
            wait_for(rank.is_dead, "the end of a rank")
        assert cancel(paths) == []
    assert [v.state for v in read_heartbeats(paths.heartbeats)] == ["drained", "working"]


def test_a_planned_run_has_nothing_to_cancel(tmp_path: Path) -> None:
    assert cancel(plan_run(tmp_path / "run", 3)) == []


@pytest.mark.parametrize("change", [{"started": "1"}, {"machine": "another"}])
def test_a_stranger_with_the_number_of_our_supervisor_is_left_alone(tmp_path: Path, change: dict[str, Any]) -> None:
    paths = plan_run(tmp_path / "run", 3)
    command = [sys.executable, "-S", "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as stranger:
        own = replace(Identity.own(), pid=stranger.pid, started=process_start(stranger.pid) or "0")
        record_launch(
            paths,
            Launch(
                number=0, executor="local", jobs={}, shape="1 node", ranks=1, supervisor=replace(own, **change).values()
            ),
        )
        assert cancel(paths) == []
        assert not own.is_dead()
        stranger.communicate(b"\n")
    assert stranger.returncode == 0, "a signal reached it"
