"""The first cause of the end of an attempt, from the files of its ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcjobs.distributed.drain import ASKS_AGAIN
from hpcjobs.distributed.lost import read_lost, tell_lost
from hpcjobs.launch import failure
from hpcjobs.launch.failure import AttemptFiles
from hpcjobs.run_folder.files import write_json
from hpcjobs.run_folder.heartbeat import Vitals
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity
from hpcjobs.run_folder.rank_state import RankState


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AttemptFiles:
    """Of three ranks, each on a node of its own; nothing more becomes visible."""
    monkeypatch.setattr(failure, "_VISIBLE_SECONDS", 0.0)
    paths = RunPaths(tmp_path)
    paths.heartbeats.mkdir()
    return AttemptFiles(paths, "7.0.1", 3, ["n0", "n1", "n2"])


def beat(files: AttemptFiles, rank: int, state: RankState, at: float | None = 1.0, **more: Any) -> None:
    vitals = Vitals(
        rank=rank, attempt="7.0.1", host=f"n{rank}", world_size=3, identity=Identity.own().values(), state=state,
        ended_at=at, **more,
    )  # fmt: skip
    write_json(files.paths.heartbeat("7.0.1", rank), vars(vitals))


def test_what_has_ended_in_order_has_not_failed(files: AttemptFiles) -> None:
    for rank, state in enumerate((RankState.DONE, RankState.DRAINED, RankState.DONE)):
        beat(files, rank, state)
    assert files.failure() is None


def test_one_that_asks_for_another_start_is_no_failure(files: AttemptFiles) -> None:
    for rank in range(3):
        beat(files, rank, RankState.DRAINED)
    tell_lost(files.paths, "7.0.1", f"rank 0 on n0 ({ASKS_AGAIN})")
    assert files.failure() is None


def test_what_was_told_first_is_the_cause(files: AttemptFiles) -> None:
    beat(files, 0, RankState.FAILED, 2.0, first_error="LostRankError: rank 2")
    beat(files, 1, RankState.FAILED, 1.0, first_error="HpcJobsError: of its own")
    beat(files, 2, RankState.FAILED, 3.0, first_error="HpcJobsError: ended with exit code 7")
    tell_lost(files.paths, "7.0.1", "rank 2 on n2 (ended with exit code 7)")
    found = files.failure()
    assert found is not None
    assert (found.rank, found.host, found.why, found.own) == (2, "n2", "ended with exit code 7", True)
    assert not found.silent


def test_where_nothing_was_told_it_is_the_first_that_was_not_ended_for_another(files: AttemptFiles) -> None:
    beat(files, 0, RankState.FAILED, 1.0, first_error="LostRankError: rank 2", ended="lost")
    beat(files, 1, RankState.DEAD, 3.0, ended="ended by SIGKILL")
    beat(files, 2, RankState.DEAD, 2.0, ended="ended by SIGSEGV")
    found = files.failure()
    assert found is not None
    assert (found.rank, found.why) == (2, "ended by SIGSEGV")


@pytest.mark.parametrize("why", ["no sign of life for 16 s", "p.py was ended on rank 1: stopped for 15 s"])
def test_a_rank_that_stood_still_has_not_failed_by_itself(files: AttemptFiles, why: str) -> None:
    for rank in range(3):
        beat(files, rank, RankState.FAILED)
    tell_lost(files.paths, "7.0.1", f"rank 1 on n1 ({why})")
    assert not (files.failure() or pytest.fail("it has failed")).own


def test_a_rank_without_an_end_makes_its_node_silent(files: AttemptFiles) -> None:
    beat(files, 0, RankState.FAILED)
    beat(files, 1, RankState.WORKING, None)
    beat(files, 2, RankState.FAILED)
    tell_lost(files.paths, "7.0.1", "rank 1 on n1 (no sign of life for 16 s)")
    found = files.failure()
    assert found is not None
    assert (found.host, found.silent, found.own) == ("n1", frozenset({"n1"}), False)
    assert files.others_ended()


def test_a_rank_that_never_began_is_named_with_its_node(files: AttemptFiles) -> None:
    beat(files, 0, RankState.DONE)
    beat(files, 1, RankState.DONE)
    found = files.failure()
    assert found is not None
    assert (found.rank, found.host, found.own) == (2, "n2", False)


def test_who_waited_in_vain_for_another_is_not_the_cause(files: AttemptFiles) -> None:
    """As where srun could start nothing on a node."""
    for rank in range(2):
        beat(files, rank, RankState.FAILED, first_error="RendezvousError: 1 of 3 ranks did not come: rank 2")
    found = files.failure()
    assert found is not None
    assert (found.rank, found.host, found.own) == (2, "n2", False)


def test_what_would_fail_again_is_fatal(files: AttemptFiles) -> None:
    for rank in range(3):
        beat(files, rank, RankState.FAILED, fatal=rank == 2)
    assert (files.failure() or pytest.fail("it has failed")).fatal


def test_where_all_are_silent_the_launcher_tells(files: AttemptFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("hpcjobs.launch.failure.time.monotonic", lambda: clock[0])
    for number in range(30):
        clock[0] += 1.0
        beat(files, 0, RankState.WORKING, None, beat=number)
        files.watch(10.0)
    assert read_lost(files.paths, "7.0.1") is None
    while read_lost(files.paths, "7.0.1") is None:
        clock[0] += 1.0
        files.watch(10.0)
    assert 40 <= clock[0] <= 42


def test_a_file_system_that_hung_is_no_silence(files: AttemptFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("hpcjobs.launch.failure.time.monotonic", lambda: clock[0])
    beat(files, 0, RankState.WORKING, None, beat=1)
    for _ in range(3):
        files.watch(10.0)
        clock[0] += 100.0
    assert read_lost(files.paths, "7.0.1") is None
