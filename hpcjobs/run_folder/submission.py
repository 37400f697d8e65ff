"""submission.json: the jobs that were queued for a run, with their exact scripts."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpcjobs.run_folder.files import read_json, write_json
from hpcjobs.run_folder.paths import RunPaths


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One launch of a run, by submit, resume or join. Immutable: more information makes a new one.

    `jobs` names the Slurm jobs or the local supervisor's process. A Slurm job has a key, recorded before sbatch is
    called: it identifies a job whose id was never received. The ranks of a `joined` launch were added to the current
    round.
    """

    number: int
    executor: str
    jobs: Mapping[str, str]
    shape: str
    ranks: int
    scripts: Mapping[str, str] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    supervisor: Mapping[str, Any] = field(default_factory=dict)
    submitted_at: float = field(default_factory=time.time)
    automatic: bool = False
    keys: Mapping[str, str] = field(default_factory=dict)
    round: int = 0
    joined: bool = False
    notes: tuple[str, ...] = ()

    def with_job(self, kind: str, job_id: str) -> Launch:
        """The launch with the id of one more job."""
        return dataclasses.replace(self, jobs={**self.jobs, kind: job_id})

    @property
    def work_jobs(self) -> list[str]:
        """The ids of the jobs that run ranks."""
        return [job_id for kind, job_id in self.jobs.items() if kind != "merge"]

    def owns(self, attempt: str) -> bool:
        """Whether `attempt` is a start or a requeue of this launch."""
        if self.executor == "slurm":  # `12.0.0`, or `12_3.0.0` of an array
            return any(attempt.startswith((f"{job_id}.", f"{job_id}_")) for job_id in self.work_jobs)
        return self.executor != "local" or attempt.startswith(f"local{self.number}t")


def read_launches(paths: RunPaths) -> list[Launch]:
    """The launches of a run, oldest first; none if it was only planned."""
    if not paths.submission.exists():
        return []
    lists = ("commands", "notes")
    return [
        Launch(**values | {name: tuple(values.get(name, ())) for name in lists})
        for values in read_json(paths.submission)["launches"]
    ]


def together(launches: Sequence[Launch]) -> list[Launch]:
    """The newest launch, and before it those of the same round that it has joined."""
    first = len(launches) - 1
    while first > 0 and launches[first].joined:
        first -= 1
    return list(launches[max(first, 0) :])


def forget_launch(paths: RunPaths, number: int) -> None:
    """Remove the record of a launch that Slurm has refused."""
    _write(paths, [old for old in read_launches(paths) if old.number != number])


def record_launch(paths: RunPaths, launch: Launch) -> None:
    """Add a launch, or replace the one with the same number."""
    _write(paths, [old for old in read_launches(paths) if old.number != launch.number] + [launch])


def _write(paths: RunPaths, launches: Sequence[Launch]) -> None:
    write_json(paths.submission, {"launches": [dataclasses.asdict(one) for one in launches]})
