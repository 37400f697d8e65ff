"""The ranks' logs as one, by time."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpcjobs.paths import RunPaths

_LINE = re.compile(r"(?P<stamp>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) rank (?P<rank>\d+) (?P<level>[A-Z]+) ")
_RANK_FILE = re.compile(r"(?P<attempt>.+)-(?P<rank>\d+)\.log")
_OUTPUT_FILE = re.compile(r"(?P<job>\d+)_(?P<rank>\d+)_log\.(out|err)")
_BAD = re.compile(r"ERROR|CRITICAL|Traceback|^\w*(Error|Exception)\b|srun: error|slurmstepd: error", re.MULTILINE)


@dataclass(frozen=True)
class Entry:
    """A log message with the lines that belong to it; `stamp` sorts."""

    stamp: str
    rank: int | None
    text: str

    @property
    def bad(self) -> bool:
        return _BAD.search(self.text) is not None


def entries(paths: RunPaths, rank: int | None = None, errors: bool = False) -> list[Entry]:
    """All messages by time. What a program printed without a time stands at its file's last change."""
    found = [entry for path in sorted(paths.logs.glob("*")) if path.is_file() for entry in _read(path)]
    kept = [e for e in found if (rank is None or e.rank == rank) and (not errors or e.bad)]
    return sorted(kept, key=lambda entry: entry.stamp)


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
    """Whether a line of program output is part of a traceback, whose end is yet to come."""
    return line.startswith(("Traceback", " ", "\t"))


def follow(paths: RunPaths, rank: int | None = None, errors: bool = False) -> Iterator[Entry]:
    """Messages as they come, until the caller stops."""
    seen: set[tuple[str, int | None, str]] = set()
    while True:
        for entry in entries(paths, rank, errors):
            key = (entry.stamp if not entry.text.startswith("[") else "", entry.rank, entry.text)
            if key not in seen:
                seen.add(key)
                yield entry
        time.sleep(1.0)
