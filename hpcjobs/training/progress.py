"""The progress of a training, from the end of its newest journal only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hpcjobs.config.resolve import read_config
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.training.data.tokens import TokenFacts
from hpcjobs.training.steps import StepRecord

# Bytes: enough for the last lines of a journal, even with thousands of samples per global batch.
_TAIL = 1 << 18
_RECENT = 8


@dataclass(frozen=True)
class Progress:
    """Planned steps (0: not known yet), steps done, recent steps per second, the last step's record, and warnings about
    rows."""

    steps: int
    done: int
    rate: float
    last: StepRecord | None
    warnings: list[str] = field(default_factory=list)


def read_progress(paths: RunPaths) -> Progress:
    """The progress of the newest start that has finished a step."""
    recent = _recent(paths)
    warnings = list[str]()
    if facts := TokenFacts.known(paths):
        steps, warnings = facts.steps, facts.warnings()
    else:
        steps = read_config(paths.config).train.max_steps or 0
    seconds = sum(record.seconds for record in recent)
    last = recent[-1] if recent else None
    return Progress(steps, last.step if last else 0, len(recent) / seconds if seconds else 0.0, last, warnings)


def _recent(paths: RunPaths) -> list[StepRecord]:
    """The last records of rank 0's newest journal; empty if no step is finished."""
    journals = [path for path in paths.journals() if path.stem.endswith("-0") and path.stat().st_size]
    if not journals:
        return []
    newest = max(journals, key=lambda path: path.stat().st_mtime_ns)
    return list(_parsed(newest))[-_RECENT:]


def _parsed(path: Path) -> Iterator[StepRecord]:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL))
        lines = file.read().split(b"\n")[:-1]
    for line in lines:
        try:
            yield StepRecord.parse(line)
        except ValueError:  # the first may be half of one
            continue
