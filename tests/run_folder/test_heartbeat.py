from __future__ import annotations

import contextlib
import logging
import os
import resource
import threading
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hpcjobs.errors import JournalError, UsageError
from hpcjobs.run_folder.heartbeat import SIZE, Heartbeat, Vitals, read_heartbeat, read_heartbeats, write_heartbeat
from hpcjobs.run_folder.process import Identity
from hpcjobs.run_folder.rank_state import RankState
from tests.runs import finish, start_process, wait_for

ERRORS = st.text(st.characters(exclude_categories=()), max_size=400)


def vitals(rank: int = 0, attempt: str = "a", **more: float) -> Vitals:
    return Vitals(rank=rank, attempt=attempt, host="here", world_size=2, identity=Identity.own().values(), **more)  # type: ignore[arg-type]


@given(error=ERRORS, ended=ERRORS)
@example(error="\U0001f600" * 400, ended="\U0001f600" * 400)
def test_the_file_has_one_size_whatever_it_tells(
    tmp_path_factory: pytest.TempPathFactory, error: str, ended: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "beat.json"
    told = vitals()
    with Heartbeat(path, told, 60) as heartbeat:
        assert path.stat().st_size == SIZE
        told.first_error, told.ended = error, ended
        heartbeat.write()
        found = read_heartbeat(path)
        assert path.stat().st_size == SIZE
        assert found
        assert error.startswith(found.first_error or "")
        assert len(found.first_error or "") >= min(len(error), 80)
        assert ended.startswith(found.ended or "")
        assert len(found.ended or "") >= min(len(ended), 20)
    assert path.stat().st_size == SIZE


def test_the_bytes_change_by_themselves_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a-0.json"
    with Heartbeat(path, vitals(), 0.01):
        first = path.read_bytes()
        wait_for(lambda: path.read_bytes() != first, "another beat")
    found = read_heartbeat(path)
    assert found
    assert (found.state, found.first_error) == ("done", None)
    assert found.ended_at
    assert found.ended_at >= found.started_at
    assert found.beat >= 3


def test_a_change_of_state_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a-0.json"
    with Heartbeat(path, vitals(), 60) as heartbeat:
        for state in (RankState.LOADING, RankState.WORKING, RankState.WAITING):
            heartbeat.enter(state)
            found = read_heartbeat(path)
            assert found
            assert found.state == state


@pytest.mark.parametrize(("earlier", "told"), [(None, "ValueError: bad row"), ("the first", "the first")])
def test_an_error_ends_as_failed_with_the_first_error(tmp_path: Path, earlier: str | None, told: str) -> None:
    path, values = tmp_path / "a-0.json", vitals()
    values.first_error = earlier
    with pytest.raises(ValueError, match="bad row"), Heartbeat(path, values, 60):
        raise ValueError("bad row")
    found = read_heartbeat(path)
    assert found
    assert (found.state, found.first_error) == ("failed", told)


def beat_beyond_limit(path: str, fifo: str) -> None:
    with open(fifo, "w") as pipe:  # a pipe knows no limit
        logging.basicConfig(stream=pipe)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        with Heartbeat(Path(path), vitals(), 60) as heartbeat:
            for _ in range(5):
                heartbeat.write()


def test_a_full_disk_is_said_once_and_is_not_fatal(tmp_path: Path) -> None:
    path, fifo = tmp_path / "a-0.json", tmp_path / "fifo"
    os.mkfifo(fifo)
    process = start_process(beat_beyond_limit, str(path), str(fifo))
    text = fifo.read_text()
    assert finish(process) == 0
    assert "File too large" in text
    assert text.count(f"heartbeat {path} cannot be written: ") == text.count("\n") == 1


def test_what_is_not_there_or_half_written_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a-0.json"
    assert read_heartbeat(path) is None
    with Heartbeat(path, vitals(), 60):
        whole = path.read_bytes()
    for content in (b"", whole[: len(whole.rstrip()) // 2], b"[]", b'{"rank": 0}'):
        path.write_bytes(content)
        assert read_heartbeat(path) is None


def test_ranks_come_by_attempt_and_number(tmp_path: Path) -> None:
    assert read_heartbeats(tmp_path / "gone") == []
    for rank, attempt, started in [(1, "b", 1000), (10, "a", 0), (2, "a", 0), (0, "b", 1000)]:
        with Heartbeat(tmp_path / f"{attempt}-{rank}.json", vitals(rank, attempt, started_at=started), 60):
            pass
    (tmp_path / "x-0.json").write_bytes(b"half")
    assert [found.name for found in read_heartbeats(tmp_path)] == ["a-2", "a-10", "b-0", "b-1"]


@pytest.mark.parametrize(
    ("state", "error", "ends", "fatal", "first_error"),
    [
        (RankState.WORKING, None, "done", False, None),
        (RankState.DRAINING, None, "drained", False, None),
        (RankState.LOADING, SystemExit("asked to"), "drained", False, None),
        (RankState.DRAINING, SystemExit(0), "drained", False, None),
        (RankState.WORKING, UsageError("no"), "failed", False, "UsageError: no"),
        (RankState.WORKING, JournalError("full"), "failed", True, "JournalError: full"),
        (RankState.DRAINING, JournalError("full"), "failed", True, "JournalError: full"),
    ],
)
def test_how_a_rank_has_ended(
    tmp_path: Path, state: RankState, error: BaseException | None, ends: str, fatal: bool, first_error: str | None
) -> None:
    path = tmp_path / "a-0.json"
    with contextlib.suppress(type(error) if error else OSError), Heartbeat(path, vitals(), 60) as heartbeat:
        heartbeat.enter(state)
        if error:
            raise error
    found = read_heartbeat(path)
    assert found
    assert (found.state, found.fatal, found.first_error) == (ends, fatal, first_error)
    assert found.ended == (str(error) if error else None)


def test_what_was_fatal_outweighs_what_a_sample_met(tmp_path: Path) -> None:
    path, values = tmp_path / "a-0.json", vitals()
    values.first_error = "sample row-3: ValueError"
    with pytest.raises(JournalError), Heartbeat(path, values, 60):
        raise JournalError("full")
    found = read_heartbeat(path)
    assert found
    assert (found.first_error, found.ended) == ("JournalError: full", "full")


def test_last_words_are_told_from_another_thread_and_the_first_reason_stands(tmp_path: Path) -> None:
    path = tmp_path / "a-0.json"
    with Heartbeat(path, vitals(), 60) as heartbeat:
        thread = threading.Thread(target=heartbeat.end_now, args=("failed", "hung"))
        thread.start()
        thread.join()
        found = read_heartbeat(path)
        assert found
        assert (found.state, found.ended) == ("failed", "hung")
        assert found.ended_at
    again = read_heartbeat(path)
    assert again
    assert again.ended == "hung"


def test_another_may_write_for_the_dead_and_makes_no_new_file(tmp_path: Path) -> None:
    path = tmp_path / "a-0.json"
    with Heartbeat(path, vitals(), 60):
        pass
    dead = vitals()
    dead.end(RankState.DEAD, "ended by SIGKILL")
    dead.signal = "SIGKILL"
    write_heartbeat(path, dead)
    assert path.stat().st_size == SIZE
    assert read_heartbeat(path) == dead
    with pytest.raises(FileNotFoundError):
        write_heartbeat(tmp_path / "gone.json", dead)
