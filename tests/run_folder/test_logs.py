"""The ranks' logs as one."""

from __future__ import annotations

import logging
import os
import warnings
from itertools import islice
from pathlib import Path

import pytest

from hpcjobs.distributed.rank import Rank
from hpcjobs.errors import UsageError
from hpcjobs.run_folder.logs import check_rank, entries, follow, rank_log, srun_ends
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.submission import Launch, record_launch
from tests.runs import hpcjobs, plan_run

TRACE = """Traceback (most recent call last):
  File "x.py", line 1, in <module>
    1 / 0
ZeroDivisionError: division by zero"""


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    paths = RunPaths(tmp_path)
    paths.logs.mkdir()
    return paths


def log(paths: RunPaths, rank: int, *lines: str) -> None:
    paths.rank_log("7.0.0", rank).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def stamp(second: int, rank: int, words: str) -> str:
    return f"2026-01-31T12:00:{second:02d}.000Z rank {rank} {words}"


def texts(paths: RunPaths, rank: int | None = None, errors: bool = False) -> list[str]:
    return [entry.text for entry in entries(paths, rank, errors)]


def test_lines_of_all_ranks_stand_by_time(paths: RunPaths) -> None:
    log(paths, 0, stamp(1, 0, "INFO a"), stamp(4, 0, "INFO d"))
    log(paths, 1, stamp(2, 1, "INFO b"), stamp(3, 1, "INFO c"))
    assert [text[-1] for text in texts(paths)] == ["a", "b", "c", "d"]
    assert [text[-1] for text in texts(paths, rank=1)] == ["b", "c"]


def test_a_traceback_stays_with_its_message(paths: RunPaths) -> None:
    log(
        paths,
        0,
        stamp(1, 0, "INFO fine"),
        stamp(2, 0, "ERROR broke"),
        *TRACE.splitlines(),
        stamp(3, 0, "INFO on"),
    )
    log(paths, 1, stamp(2, 1, "WARNING ErrorBudget is low"))
    assert texts(paths)[1].endswith(TRACE) or texts(paths)[2].endswith(TRACE)
    [only] = texts(paths, errors=True)
    assert only == f"{stamp(2, 0, 'ERROR broke')}\n{TRACE}"


def test_what_a_program_printed_has_its_files_name(paths: RunPaths) -> None:
    (paths.logs / "812_1_log.out").write_text(f"hello\n{TRACE}\nslurmstepd: error: *** JOB 812 CANCELLED ***\n")
    (paths.logs / "supervisor-0.log").write_text("error: x\n")
    (paths.logs / "812_submission.sh").write_text("#!/bin/bash\nERROR\n")
    (paths.logs / "812_submitted.pkl").write_bytes(b"ERROR\x80\n")
    assert "[812_1_log.out] hello" in texts(paths)
    assert not any("#!/bin/bash" in text for text in texts(paths))
    bad = texts(paths, rank=1, errors=True)
    assert len(bad) == 2
    assert bad[0].count("\n") == 3
    assert "ZeroDivisionError" in bad[0]
    assert "slurmstepd: error" in bad[1]


def test_no_logs_yet(paths: RunPaths) -> None:
    assert texts(paths) == []
    assert texts(RunPaths(paths.root / "none")) == []


def test_bytes_that_are_no_text_are_shown_somehow(paths: RunPaths) -> None:
    paths.rank_log("7.0.0", 0).write_bytes(stamp(1, 0, "INFO caf").encode() + b"\xe9\n")
    assert texts(paths) == [stamp(1, 0, "INFO caf�")]


def test_following_says_each_message_once_and_new_ones_as_they_come(paths: RunPaths) -> None:
    log(paths, 0, stamp(1, 0, "INFO a"), stamp(2, 0, "INFO b"))
    coming = follow(paths)
    assert [entry.text[-1] for entry in islice(coming, 2)] == ["a", "b"]
    log(paths, 0, stamp(1, 0, "INFO a"), stamp(2, 0, "INFO b"), stamp(3, 0, "INFO c"))
    log(paths, 1, stamp(2, 1, "INFO z"))
    assert [entry.text[-1] for entry in islice(coming, 2)] == ["z", "c"]


def test_a_rank_log_is_what_the_merger_reads(paths: RunPaths) -> None:
    rank = Rank(
        rank=3, world_size=4, local_rank=3, local_world_size=4, node=0, attempt="7.0.0", launcher="single", host="host"
    )
    path = paths.rank_log(rank.attempt, rank.rank)
    with rank_log(path, rank.rank):
        logging.getLogger("hpcjobs.any").info("hello %s", "world\u2028é\ud800")
        logging.getLogger("hpcjobs.any").debug("not this")
        logging.getLogger("other").info("nor this")
        warnings.warn("but this", stacklevel=1)
        try:
            raise ValueError("inside")
        except ValueError:
            logging.getLogger("hpcjobs.any").exception("broke")
    logging.getLogger("hpcjobs.any").info("after the end")
    got = entries(paths)
    assert [entry.rank for entry in got] == [3, 3, 3]
    assert "rank 3 INFO hello world" in got[0].text
    assert "but this" in got[1].text
    assert "ValueError: inside" in got[2].text
    assert [entry.bad for entry in got] == [False, False, True]
    assert os.stat(path).st_mode & 0o077 == 0


def told(paths: RunPaths, *attempts: str) -> None:
    """Heartbeats, of which the names alone matter here."""
    paths.heartbeats.mkdir(exist_ok=True)
    for attempt in attempts:
        (paths.heartbeats / f"{attempt}.json").touch()


def test_what_srun_saw_of_tasks_that_did_not_end_well(paths: RunPaths) -> None:
    told(
        paths, "812.0.0-0", "812.0.0-1", "812.0.0-2", "812.0.0-3", "8.0.0-1", "8120.0.0-1", "812_4.0.0-0", "812_4.1.0-0"
    )
    (paths.logs / "812_0_log.out").write_text(
        "hello\nsrun: error: n1: tasks 1-2: Killed\nsrun: error: n2: task 3: Exited with exit code 1 \n"
        "say: srun: error: n2: task 0: not at the start of its line\nsrun: error: Node failure on n3\n"
    )
    (paths.logs / "812_4_0_log.out").write_text("srun: error: n9: task 0: Segmentation fault (core dumped)\n")
    (paths.logs / "812_1_log.out").write_text("srun: error: n1: task 0: what a rank itself printed\n")
    assert srun_ends(paths) == {
        "812.0.0-1": "Killed", "812.0.0-2": "Killed", "812.0.0-3": "Exited with exit code 1",
        "812_4.0.0-0": "Segmentation fault (core dumped)", "812_4.1.0-0": "Segmentation fault (core dumped)",
    }  # fmt: skip


def test_of_a_huge_log_the_end_is_read(paths: RunPaths) -> None:
    told(paths, "812.0.0-0", "812.0.0-5", "812.0.0-7")
    with (paths.logs / "812_0_log.out").open("wb") as file:
        file.write(
            b"srun: error: n1: task 5: Killed\n" + b"\xff" * (1 << 20) + b"\nsrun: error: n1: tasks 0,7: Killed\n"
        )
    assert srun_ends(paths).keys() == {"812.0.0-0", "812.0.0-7"}


def test_srun_has_said_nothing(paths: RunPaths) -> None:
    assert srun_ends(paths) == {}
    assert srun_ends(RunPaths(paths.root / "none")) == {}


def test_a_rank_that_the_run_does_not_have_is_refused(tmp_path: Path) -> None:
    paths = plan_run(tmp_path / "run", 3, cluster={"executor": "local", "ntasks_per_node": 2})
    for rank in (0, 1):
        check_rank(paths, rank)
    with pytest.raises(UsageError, match=r"^--rank 7: there are ranks 0 to 1$"):
        check_rank(paths, 7)
    record_launch(paths, Launch(number=0, executor="local", jobs={}, shape="8 ranks", ranks=8))
    check_rank(paths, 7)
    done = hpcjobs("logs", paths.root, "--rank", "8")
    assert (done.returncode, done.stderr) == (2, "error: --rank 8: there are ranks 0 to 7\n")
