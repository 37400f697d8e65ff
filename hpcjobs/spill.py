"""Sorting accepted records by input order in flat memory: lines go to one bucket file a range of indexes."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from hpcjobs.files import FOLDER_MODE, temporary_name
from hpcjobs.records import Record

BUCKET = 32_768


class Spill:
    """Buckets of records; up to one bucket's rows stay in memory, more go to files in `folder`."""

    def __init__(self, folder: Path, rows: int) -> None:
        self._count = max(1, -(-rows // BUCKET))
        self._memory: list[Record] = []
        self._folder = temporary_name(folder / "merge") if self._count > 1 else None
        if self._folder:
            self._folder.mkdir(mode=FOLDER_MODE)
        self._files: dict[int, IO[bytes]] = {}

    def add(self, record: Record) -> None:
        if self._folder is None:
            self._memory.append(record)
            return
        bucket = record.index // BUCKET
        if bucket not in self._files:
            self._files[bucket] = (self._folder / str(bucket)).open("wb", buffering=1 << 17)
        self._files[bucket].write(record.line())

    def buckets(self, rows: int) -> Iterator[tuple[range, list[Record]]]:
        """(index range, its records in the order of `add`) for each bucket, in input order, once.

        The disk gets each bucket's space back when it is read.
        """
        for number in range(self._count):
            yield range(number * BUCKET, min(rows, (number + 1) * BUCKET)), self._read(number)

    def _read(self, number: int) -> list[Record]:
        if self._folder is None:
            return self._memory
        if number not in self._files:
            return []
        self._files[number].close()
        path = self._folder / str(number)
        lines = path.read_bytes().split(b"\n")[:-1]
        path.unlink()
        return [Record.parse(line) for line in lines]

    def __enter__(self) -> Spill:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            with contextlib.suppress(OSError):  # a full disk refuses the rest again
                file.close()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
