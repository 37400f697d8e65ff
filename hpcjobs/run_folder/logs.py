"""The ranks' logs as one, by time."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpcjobs.run_folder.paths import RunPaths

_LINE = re.compile(r"(?P<stamp>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) rank (?P<rank>\d+) (?P<level>[A-Z]+) ")
_RANK_FILE = re.compile(r"(?P<attempt>.+)-(?P<rank>\d+)\.log")
_OUTPUT_FILE = re.compile(r"(?P<job>\d+(_\d+)?)_(?P<rank>\d+)_log\.(out|err)")
_BAD = re.compile(r"ERROR|CRITICAL|Traceback|^\w*(Error|Exception)\b|srun: error|slurmstepd: error", re.MULTILINE)
_SRUN = re.compile(r"^srun: error: \S+: tasks? (?P<tasks>\d[\d,-]*): (?P<how>.+)$", re.MULTILINE)
_END_BYTES = 1 << 20


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


def srun_ends(paths: RunPaths) -> dict[str, str]:
    """`<attempt>-<rank>` -> what srun said of a task that did not end well: 'Killed', 'Exited with exit code 1'.

    From the ends of the batch logs, where srun writes `srun: error: node1: tasks 0-1: Killed`.
    """
    found: dict[str, str] = {}
    for path in paths.logs.glob("*_0_log.out") if paths.logs.is_dir() else ():
        job = path.name.removesuffix("_0_log.out")
        for match in _SRUN.finditer(_end_of(path)):
            for task in _numbers(match["tasks"]):
                for beat in paths.heartbeats.glob(f"{job}.*-{task}.json"):
                    found[beat.stem] = match["how"].strip()
    return found


def _end_of(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _END_BYTES))
        return file.read().decode(errors="replace")


def _numbers(text: str) -> list[int]:
    """`0-2,5` -> 0, 1, 2, 5."""
    parts = (part.partition("-") for part in text.split(","))
    return [number for low, _, high in parts for number in range(int(low), int(high or low) + 1)]
