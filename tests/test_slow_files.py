"""A slow shared file system: waits are bounded, and nothing is lost, doubled or broken by what shows late."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.journal.journal import read_journal
from hpcjobs.run_folder.paths import RunPaths
from tests.runs import Ranks, finish, outcome, plan_run, rank_env, run_ranks, start_process, undisturbed
from tests.slow_files import slow_merge_main, slow_rank_main

ROWS = 60


class SlowRanks(Ranks):
    """Ranks whose view of the run folder is up to `delay` seconds behind."""

    delay = 1.0

    def start(self, *ranks: int) -> None:
        for rank in ranks:
            env = rank_env(rank, self.world, self.attempt)
            self._processes[rank] = start_process(slow_rank_main, str(self.paths.root), env, self.delay)


def hidden(paths: RunPaths) -> int:
    """How often a rank did not see what was there."""
    return sum(int(path.read_text()) for path in paths.logs.glob("hidden-*.txt"))


@pytest.mark.parametrize("changes", [{}, {"deterministic": True}, {"chunk_size": 1}])
def test_three_ranks_that_see_each_others_files_late(ram: Path, changes: dict[str, Any]) -> None:
    paths = plan_run(ram / "r", ROWS, model={"dummy_delay": 0.01}, run={"heartbeat": 0.2} | changes)
    with SlowRanks(paths, 3) as ranks:
        ranks.start(0, 1, 2)
        assert ranks.finish(0, 1, 2) == [0, 0, 0]
    merged, content, values = outcome(paths)
    assert merged.complete
    assert (content, values) == undisturbed(ROWS)
    assert hidden(paths) > 0, "the shim hid nothing: this was no slow file system"


def test_a_rank_that_is_killed_there(ram: Path) -> None:
    paths = plan_run(ram / "r", ROWS, model={"dummy_delay": 0.02}, run={"heartbeat": 0.2, "lease_timeout": 3.0})
    with SlowRanks(paths, 3) as ranks:
        ranks.start(0, 1, 2)
        ranks.wait_for_record(1)
        ranks.signal(1, signal.SIGKILL)
        assert ranks.finish(0, 2) == [0, 0]
    merged, content, values = outcome(paths)
    assert merged.complete
    assert (content, values) == undisturbed(ROWS)


def test_a_rank_that_is_stopped_there_and_wakes_up(ram: Path) -> None:
    paths = plan_run(ram / "r", ROWS, model={"dummy_delay": 0.02}, run={"heartbeat": 0.2, "lease_timeout": 2.0})
    with SlowRanks(paths, 3) as ranks:
        ranks.start(0, 1, 2)
        ranks.wait_for_record(1)
        ranks.signal(1, signal.SIGSTOP)
        assert ranks.finish(0, 2) == [0, 0]
        ranks.signal(1, signal.SIGCONT)
        ranks.finish(1)
    merged, content, values = outcome(paths)
    assert merged.complete
    assert (content, values) == undisturbed(ROWS)


def test_ranks_that_come_one_after_the_other_share_the_work(ram: Path) -> None:
    paths = plan_run(ram / "r", ROWS, model={"dummy_delay": 0.02})
    with SlowRanks(paths, 2) as ranks:
        ranks.start(0)
        ranks.wait_for_record(0)
        ranks.start(1)
        assert ranks.finish(0, 1) == [0, 0]
    assert outcome(paths)[1:] == undisturbed(ROWS)
    made = sum(len(list(read_journal(path))) for path in paths.journals())
    assert made == ROWS  # late sight alone makes no work twice


def test_a_merge_that_sees_late_never_says_complete_and_again_is_whole(ram: Path) -> None:
    paths = plan_run(ram / "r", ROWS)
    run_ranks(paths, 2)
    assert finish(start_process(slow_merge_main, str(paths.root), 0.2)) == 3
    said = read_json(paths.metrics)
    assert said["complete"] is False
    assert said["counts"]["accepted"] + said["counts"]["missing"] == ROWS
    assert outcome(paths)[1:] == undisturbed(ROWS)
