"""Rank-local results: one file a rank and attempt, appended by its one writer, readable after any crash."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from hpcjobs.errors import JournalError, MergeError
from hpcjobs.files import FILE_MODE, write_all
from hpcjobs.records import Record

log = logging.getLogger(__name__)
_BLOCK = 1 << 20


class Journal:
    """Append records to a new file. An error on writing is fatal: half a line may be only the last one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, FILE_MODE)
        except FileExistsError:
            raise JournalError(f"{path} exists: another process is this rank of this attempt") from None
        except OSError as error:
            raise JournalError(f"{path} cannot be created: {error.strerror}") from error

    def append(self, record: Record) -> None:
        """Write one record; it outlives this process at once, and the node after `sync`."""
        self._try(lambda: write_all(self._handle, record.line()))

    def sync(self) -> None:
        """Make all records durable."""
        self._try(lambda: os.fsync(self._handle))

    def _try(self, write: object) -> None:
        try:
            write()  # type: ignore[operator]
        except OSError as error:
            raise JournalError(
                f"{self.path} cannot be written: {error.strerror}; free space or raise the quota there, then: "
                f"hpcjobs resume {self.path.parent.parent}"
            ) from error

    def close(self) -> None:
        os.close(self._handle)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def journal_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(offset, line without newline) of each whole line. An unterminated last line is dropped, and said."""
    offset, rest = 0, b""
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                yield offset, line
                offset += len(line) + 1
    if rest:
        log.warning("%s: dropped an unterminated last line of %d bytes at offset %d", path, len(rest), offset)


def read_journal(path: Path) -> Iterator[Record]:
    """The records of a journal, in order; a MergeError names the offset of a line that no crash can make."""
    for offset, line in journal_lines(path):
        try:
            yield Record.parse(line)
        except ValueError as error:
            raise MergeError(
                f"{path}: broken record at offset {offset}: {error}; no crash does that: look at the disk, move the "
                f"file out of the run, and then: hpcjobs resume {path.parent.parent}"
            ) from None
