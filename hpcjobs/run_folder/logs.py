"""The logs of all ranks, merged by time."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpcjobs.errors import UsageError
from hpcjobs.masking import masked
from hpcjobs.run_folder.disk import disk_message, is_full, need_there
from hpcjobs.run_folder.files import open_file, write_all
from hpcjobs.run_folder.heartbeat import read_heartbeats
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan
from hpcjobs.run_folder.submission import read_launches

_LINE = re.compile(r"(?P<stamp>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) rank (?P<rank>\d+) (?P<level>[A-Z]+) ")
_RANK_FILE = re.compile(r"(?P<attempt>.+)-(?P<rank>\d+)\.log")
_OUTPUT_FILE = re.compile(r"(?P<job>\d+(_\d+)?)_(?P<rank>\d+)_log\.(out|err)")
_BAD = re.compile(r"ERROR|CRITICAL|Traceback|^\w*(Error|Exception)\b|srun: error|slurmstepd: error", re.MULTILINE)
_SRUN = re.compile(r"^srun: error: \S+: tasks? (?P<tasks>\d[\d,-]*): (?P<how>.+)$", re.MULTILINE)
_END_BYTES = 1 << 20


@dataclass(frozen=True)
class Entry:
    """A log message with the lines that belong to it. `stamp` is its time in ISO 8601."""

    stamp: str
    rank: int | None
    text: str

    @property
    def bad(self) -> bool:
        """Whether it looks like an error."""
        return _BAD.search(self.text) is not None


def entries(paths: RunPaths, rank: int | None = None, errors: bool = False) -> list[Entry]:
    """All messages by time. Output without a time stamp gets the time of its file's last change."""
    found = [entry for path in sorted(paths.logs.glob("*")) if path.is_file() for entry in _read(path)]
    kept = [e for e in found if (rank is None or e.rank == rank) and (not errors or e.bad)]
    return sorted(kept, key=lambda entry: entry.stamp)


def check_rank(paths: RunPaths, rank: int) -> None:
    """Raise a UsageError if no start of the run has, or was planned with, such a rank."""
    planned = [Plan.read(paths.plan).shape.ranks, *(launch.ranks for launch in read_launches(paths))]
    seen = [vitals.rank + 1 for vitals in read_heartbeats(paths.heartbeats)]
    if not 0 <= rank < (ranks := max(planned + seen)):
        raise UsageError(
            f"--rank {rank}: there are ranks 0 to {ranks - 1}" if ranks > 1 else f"--rank {rank}: there is rank 0"
        )


def _read(path: Path) -> Iterator[Entry]:
    own, output = _RANK_FILE.fullmatch(path.name), _OUTPUT_FILE.fullmatch(path.name)
    if not own and not output and not path.name.startswith("supervisor-"):
        return
    rank = int(own["rank"]) if own else int(output["rank"]) if output else None
    text = path.read_text(encoding="utf-8", errors="replace")
    changed = time.gmtime(path.stat().st_mtime)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", changed) + ".999Z"
    lines: list[str] = []
    for line in text.splitlines():
        match = _LINE.match(line)
        if match and lines:
            yield Entry(stamp, rank, "\n".join(lines))
            lines = []
        stamp = match["stamp"] if match else stamp
        lines.append(line if own else f"[{path.name}] {line}")
        if not own and not _continues(line):
            yield Entry(stamp, rank, "\n".join(lines))
            lines = []
    if lines:
        yield Entry(stamp, rank, "\n".join(lines))


def _continues(line: str) -> bool:
    """Whether a line of program output belongs to a traceback that goes on."""
    return line.startswith(("Traceback", " ", "\t"))


def follow(paths: RunPaths, rank: int | None = None, errors: bool = False) -> Iterator[Entry]:
    """New messages as they arrive, until the caller stops."""
    seen: set[tuple[str, int | None, str]] = set()
    while True:
        for entry in entries(paths, rank, errors):
            key = (entry.stamp if not entry.text.startswith("[") else "", entry.rank, entry.text)
            if key not in seen:
                seen.add(key)
                yield entry
        time.sleep(1.0)


def srun_ends(paths: RunPaths) -> dict[str, str]:
    """`<attempt>-<rank>` -> how srun reports a task that failed: 'Killed', 'Exited with exit code 1'.

    Read from the ends of the batch logs, where srun writes `srun: error: node1: tasks 0-1: Killed`.
    """
    found: dict[str, str] = {}
    for path in paths.logs.glob("*_0_log.out") if paths.logs.is_dir() else ():
        job = path.name.removesuffix("_0_log.out")
        for match in _SRUN.finditer(_end_of(path)):
            for task in _numbers(match["tasks"]):
                for heartbeat in paths.heartbeats.glob(f"{job}.*-{task}.json"):
                    found[heartbeat.stem] = match["how"].strip()
    return found


def _end_of(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _END_BYTES))
        return file.read().decode(errors="replace")


def _numbers(text: str) -> list[int]:
    """`0-2,5` -> 0, 1, 2, 5."""
    parts = (part.partition("-") for part in text.split(","))
    return [number for low, _, high in parts for number in range(int(low), int(high or low) + 1)]


class _Lines(logging.Formatter):
    """`2026-01-31T12:00:00.123Z rank 3 INFO text`, in UTC, so that lines of different hosts sort by time."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self._rank = rank

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        text = masked(text)
        return f"{stamp}.{int(record.msecs):03d}Z rank {self._rank} {record.levelname} {text}"


class _LogFile(logging.Handler):
    """Appends each line to a file at once. If the disk is full, lines are lost, but the rank goes on.

    That is printed once, on stderr. When there is space again, logging goes on, and the first line says how many were
    lost.
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
            self._handle = open_file(self._path, os.O_WRONLY | os.O_APPEND)

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            with contextlib.suppress(OSError, ValueError):  # stderr may be a file on the same disk, or closed
                print(f"error: {_message(error, self._path)}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._handle >= 0:
            with contextlib.suppress(OSError):
                os.close(self._handle)
            self._handle = -1
        super().close()


def _message(error: OSError, path: Path) -> str:
    if not is_full(error):
        return f"{path} cannot be written: {error.strerror}"
    return disk_message(
        error, path, need_there(path, 0), f"the log goes on by itself; hpcjobs status {path.parent.parent}"
    )


@contextlib.contextmanager
def rank_log(path: Path, rank: int) -> Iterator[None]:
    """Within the block, write hpcjobs' log records of level INFO and above, and all warnings, to `path`."""
    handler = _LogFile(path)
    handler.setFormatter(_Lines(rank))
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
