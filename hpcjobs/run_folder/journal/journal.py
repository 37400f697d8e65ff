"""Journals on disk: one file per rank and attempt, append-only, readable after any crash."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol

from hpcjobs.errors import JournalError, MergeError
from hpcjobs.run_folder.disk import disk_message, is_full, need_there
from hpcjobs.run_folder.files import open_file, write_all
from hpcjobs.run_folder.journal.parse_lines import lines_of
from hpcjobs.run_folder.journal.record import Record

log = logging.getLogger(__name__)
_BLOCK = 1 << 20


class JournalLine(Protocol):
    """Anything that a journal can hold."""

    def line(self) -> bytes:
        """The entry as one line that ends with a newline."""
        ...


class Journal:
    """Appends records to a new file.

    A failed write may leave half a line, which is only allowed at the end of the file. So nothing is written after it:
    every further call raises the same JournalError, and a caller cannot mark a chunk as done whose samples were not
    written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._failure: str | None = None
        try:
            self._handle = open_file(path, os.O_WRONLY | os.O_EXCL | os.O_APPEND)
        except FileExistsError:
            raise JournalError(f"{path} exists: another process is this rank of this attempt") from None
        except OSError as error:
            raise JournalError(self._words(error, "created", 0)) from error

    def append(self, record: JournalLine) -> None:
        """Write one record. It survives a crash of this process; a crash of the node only after `sync`."""
        line = record.line()
        self._try(lambda: write_all(self._handle, line), len(line))

    def sync(self) -> None:
        """Make all records durable (fsync)."""
        self._try(lambda: os.fsync(self._handle), 0)

    def _try(self, write: Callable[[], None], size: int) -> None:
        if self._failure:
            raise JournalError(self._failure)
        try:
            write()
        except OSError as error:
            self._failure = self._words(error, "written", size)
            raise JournalError(self._failure) from error

    def _words(self, error: OSError, done: str, size: int) -> str:
        """What to say of an error; `size` bytes are what could not be written."""
        command = f"hpcjobs resume {self.path.parent.parent}"
        if is_full(error):
            return disk_message(error, self.path, need_there(self.path, size), command)
        return f"{self.path} cannot be {done}: {error.strerror}; when it can be, go on with: {command}"

    def close(self) -> None:
        """Close the file. Some network file systems report a full disk only now; what was synced before is safe."""
        try:
            os.close(self._handle)
        except OSError as error:
            if not self._failure:
                raise JournalError(self._words(error, "written", 0)) from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def journal_blocks(path: Path, size: int = _BLOCK) -> Iterator[tuple[int, bytes]]:
    """`(offset, whole lines)` in blocks of about `size` bytes. An unterminated last line is dropped with a warning."""
    offset, rest = 0, b""
    with path.open("rb") as file:
        while block := file.read(size):
            end = block.rfind(b"\n") + 1
            if not end:
                rest += block
                continue
            whole, rest = rest + block[:end], block[end:]
            yield offset, whole
            offset += len(whole)
    if rest:
        log.warning("%s: dropped an unterminated last line of %d bytes at offset %d", path, len(rest), offset)


def journal_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """`(offset, line without newline)` of each whole line. An unterminated last line is dropped with a warning."""
    for offset, block in journal_blocks(path):
        yield from lines_of(offset, block)


def read_journal(path: Path) -> Iterator[Record]:
    """The records of a journal, in order. Raises a MergeError with the offset of a broken line."""
    for offset, line in journal_lines(path):
        yield parse_line(path, offset, line)


def parse_line(path: Path, offset: int, line: bytes) -> Record:
    """The record in a line of a journal. Raises a MergeError."""
    try:
        return Record.parse(line)
    except ValueError as error:
        raise broken(path, offset, error) from None


def broken(path: Path, offset: int, error: Exception) -> MergeError:
    """The MergeError for a broken line, which no crash explains."""
    return MergeError(
        f"{path}: broken record at offset {offset}: {error}; no crash does that: look at the disk, move the "
        f"file out of the run, and then: hpcjobs resume {path.parent.parent}"
    )
