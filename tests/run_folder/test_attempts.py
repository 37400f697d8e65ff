"""The records of attempts that have failed."""

from __future__ import annotations

from pathlib import Path

from hpcjobs.run_folder.attempts import FailedAttempt, failed_attempts
from hpcjobs.run_folder.paths import RunPaths


def test_they_are_read_back_in_order_and_say_what_came_next(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    assert failed_attempts(paths) == []
    last = FailedAttempt(
        attempt="3.0.1", restart=1, restarts=1, rank=None, host=None, why="none has said why", again=False,
        then="restart 1 of 1 was the last", ended_at=2.0,
    )  # fmt: skip
    first = FailedAttempt(
        attempt="3.0.0", restart=0, restarts=1, rank=2, host="n2", why="ended with exit code 7", again=True,
        left_out=["n2"], ended_at=1.0,
    )  # fmt: skip
    for one in (last, first, first):
        one.record(paths)
    assert failed_attempts(paths) == [first, last]
    assert str(first) == (
        "attempt 3.0.0 was ended by rank 2 on n2 (ended with exit code 7): started again without n2: restart 1 of 1"
    )
    assert str(last) == "attempt 3.0.1 was ended by none has said why: restart 1 of 1 was the last"
