"""submission.json: what was queued for a run, and exactly how."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from typing import Any

from hpcjobs.files import read_json, write_json
from hpcjobs.paths import RunPaths


@dataclass(frozen=True)
class Launch:
    """One start of a run: by submit or by resume. `jobs` names the Slurm jobs or the local supervisor's process."""

    number: int
    executor: str
    jobs: dict[str, str]
    shape: str
    ranks: int
    scripts: dict[str, str] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    supervisor: dict[str, Any] = field(default_factory=dict)
    submitted_at: float = field(default_factory=time.time)
    automatic: bool = False

    def owns(self, attempt: str) -> bool:
        """Whether `attempt` is a start, or a requeue, of this launch."""
        if self.executor == "slurm":
            return attempt.startswith(f"{self.jobs.get('work')}.")
        return self.executor != "local" or attempt.startswith(f"local{self.number}t")


def read_launches(paths: RunPaths) -> list[Launch]:
    """The starts of a run, oldest first; none where it was only planned."""
    if not paths.submission.exists():
        return []
    return [Launch(**values) for values in read_json(paths.submission)["launches"]]


def record_launch(paths: RunPaths, launch: Launch) -> None:
    """Add a start, or replace the one of the same number."""
    launches = [old for old in read_launches(paths) if old.number != launch.number] + [launch]
    write_json(paths.submission, {"launches": [dataclasses.asdict(one) for one in launches]})
