"""A rank's log: a file of its own, each line with time and rank, so that `hpcjobs logs` can merge them."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from hpcjobs.files import FILE_MODE
from hpcjobs.rank import Rank


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


@contextlib.contextmanager
def rank_log(path: Path, rank: Rank) -> Iterator[None]:
    """Send this package's log records of INFO and above, and all warnings, to `path` for the time of the block."""
    path.touch(mode=FILE_MODE)
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
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
