from __future__ import annotations

import logging
import os
import resource
import signal
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcjobs.errors import JournalError, MergeError
from hpcjobs.run_folder.journal.journal import _BLOCK, Journal, journal_lines, read_journal
from hpcjobs.run_folder.journal.record import Record
from tests.run_folder.journal.test_record import RECORDS
from tests.runs import finish, record_of, records_in, start_process, wait_for

NAMES = count()


@given(records=st.lists(RECORDS, max_size=5))
def test_every_text_comes_back_exactly(tmp_path_factory: pytest.TempPathFactory, records: list[Record]) -> None:
    path = tmp_path_factory.getbasetemp() / f"journal-{next(NAMES)}.jsonl"
    with Journal(path) as journal:
        for record in records:
            journal.append(record)
        journal.sync()
    assert list(read_journal(path)) == records


def test_lines_longer_than_a_block_come_back(tmp_path: Path) -> None:
    records = [record_of(n, 0, completion="long " * (_BLOCK // 5 + n)) for n in range(3)] + [record_of(3, 0)]
    path = tmp_path / "a-0.jsonl"
    path.write_bytes(b"".join(record.line() for record in records))
    assert list(read_journal(path)) == records
    starts = [0, *(sum(len(r.line()) for r in records[: n + 1]) for n in range(3))]
    assert [offset for offset, _ in journal_lines(path)] == starts


def test_a_torn_tail_is_dropped_and_said_wherever_it_is_torn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    records = [record_of(0, 0), record_of(1, 0, completion="\n\u0085\0\ud800")]
    content, path = b"".join(record.line() for record in records), tmp_path / "a-0.jsonl"
    first = len(records[0].line())
    for size in range(len(content) + 1):
        path.write_bytes(content)
        os.truncate(path, size)
        caplog.clear()
        whole = (size >= first) + (size == len(content))
        assert list(read_journal(path)) == records[:whole]
        torn = size - (0, first, len(content))[whole]
        expected = [f"{path}: dropped an unterminated last line of {torn} bytes at offset {size - torn}"]
        assert caplog.messages == (expected if torn else [])


BROKEN = [b"\n", b"{}\n", b'{"index":1,\n', b"\0\0\0\n", b"\xff\n", record_of(1, 0).line()[5:]]


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_line_inside_names_file_and_offset(tmp_path: Path, broken: bytes) -> None:
    path, first = tmp_path / "a-0.jsonl", record_of(0, 0)
    path.write_bytes(first.line() + broken + record_of(2, 0).line())
    found = read_journal(path)
    assert next(found) == first
    with pytest.raises(MergeError, match=f"{path}: broken record at offset {len(first.line())}: "):
        next(found)


def test_a_broken_last_line_with_its_newline_is_an_error_too(tmp_path: Path) -> None:
    path = tmp_path / "a-0.jsonl"
    path.write_bytes(record_of(0, 0).line() + b'{"index":\n')
    with pytest.raises(MergeError, match="offset"):
        list(read_journal(path))


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a-0.jsonl"
    with Journal(path) as journal:
        journal.append(record_of(0, 0))
        with pytest.raises(JournalError, match=f"{path} exists: another process is this rank of this attempt"):
            Journal(path)
    with pytest.raises(JournalError, match="exists"):
        Journal(path)
    assert records_in(path) == [record_of(0, 0)]


def test_a_journal_that_cannot_be_created_names_its_path(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=f"{tmp_path}/gone/a-0.jsonl cannot be created"):
        Journal(tmp_path / "gone" / "a-0.jsonl")


def write_for_ever(path: str) -> None:
    with Journal(Path(path)) as journal:
        for number in count():
            journal.append(record_of(number, 0, completion="text " * (number % 5000)))


def test_a_killed_writer_leaves_whole_records(ram: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    for kill in range(5):
        path = ram / f"{kill}-0.jsonl"
        writer = start_process(write_for_ever, str(path))
        size = 200_000 * (kill + 1)
        wait_for(lambda path=path, size=size: path.exists() and path.stat().st_size > size, "lines")  # type: ignore[misc]
        os.kill(writer.pid or 0, signal.SIGKILL)
        assert finish(writer) == -signal.SIGKILL
        records = records_in(path)
        expected = [record_of(n, 0, completion="text " * (n % 5000)) for n in range(len(records))]
        assert records == expected
        whole = sum(len(record.line()) for record in records)
        assert size < path.stat().st_size < whole + 30_000, "no more than one line was torn off"


def write_beyond_limit(path: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    with Journal(Path(path)) as journal:
        for number in range(int(5000 / len(record_of(0, 0).line()))):
            journal.append(record_of(number, 0))
        with pytest.raises(JournalError, match=r"cannot be written: File too large.*hpcjobs resume"):
            journal.append(record_of(99, 0))


def test_a_full_disk_is_fatal_and_said_and_costs_the_last_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "a-0.jsonl"
    assert finish(start_process(write_beyond_limit, str(path))) == 0
    assert path.stat().st_size == 5000
    records, size = records_in(path), len(record_of(0, 0).line())
    assert records == [record_of(number, 0) for number in range(len(records))]
    assert len(records) * size <= 5000 < (len(records) + 2) * size
