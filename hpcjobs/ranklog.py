"""A rank's log: a file of its own, each line with time and rank, so that `hpcjobs logs` can merge them."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from hpcjobs.distributed.rank import Rank
from hpcjobs.run_folder.disk import disk_words, is_full, need_there
from hpcjobs.run_folder.files import FILE_MODE, write_all


class _Lines(logging.Formatter):
    """`2026-01-31T12:00:00.123Z rank 3 INFO text`, UTC, so that lines of different hosts sort."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self._rank = rank

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return f"{stamp}.{int(record.msecs):03d}Z rank {self._rank} {record.levelname} {text}"


class _LogFile(logging.Handler):
    """Appends each line to a file at once. A disk that takes no more costs lines, never the rank.

    That is said once, on stderr; when there is room again the lines go on, the first of them with how many are lost.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path, self._handle, self._lost, self._complained = path, -1, 0, False
        try:
            self._open()
        except OSError as error:
            self._complain(error)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record) + "\n"
            if self._lost:  # what was being written may end in the middle of a line
                text = f"\n{text.rstrip()} ({self._lost} earlier lines are lost: this file could not be written)\n"
            self._open()
            write_all(self._handle, text.encode("utf-8", "backslashreplace"))
            self._lost = 0
        except OSError as error:
            self._lost += 1
            self._complain(error)
        except Exception:  # a record whose arguments do not fit its text: logging's own way to say it
            self.handleError(record)

    def _open(self) -> None:
        if self._handle < 0:
            self._handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, FILE_MODE)

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            with contextlib.suppress(OSError, ValueError):  # stderr may be a file on the same disk, or closed
                print(f"error: {_said(error, self._path)}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._handle >= 0:
            with contextlib.suppress(OSError):
                os.close(self._handle)
            self._handle = -1
        super().close()


def _said(error: OSError, path: Path) -> str:
    if not is_full(error):
        return f"{path} cannot be written: {error.strerror}"
    return disk_words(
        error, path, need_there(path, 0), f"the log goes on by itself; hpcjobs status {path.parent.parent}"
    )


@contextlib.contextmanager
def rank_log(path: Path, rank: Rank) -> Iterator[None]:
    """Send this package's log records of INFO and above, and all warnings, to `path` for the time of the block."""
    handler = _LogFile(path)
    handler.setFormatter(_Lines(rank.rank))
    root, ours = logging.getLogger(), logging.getLogger("hpcjobs")
    before = ours.level
    ours.setLevel(os.environ.get("HPCJOBS_LOG", "INFO"))
    root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        ours.setLevel(before)
        handler.close()
