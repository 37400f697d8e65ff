"""launches/: what each launch of a run has done, in files that are created once and never changed.

    3.json               launch 3: its shape and round, and the process that starts it
    3.work.key.json      the key and the exact script of its job `work`, before sbatch is called
    3.work.job-812       the id of that job, from the command that queued it, and from the job itself when it starts
    3.work.refused       why Slurm did not take that job
    3.process.json       the supervisor of a local launch, before it starts any rank
    3.launched           everything is queued or started
    3.cancelled          it was asked to end
    3.void               it does not count, and why

Creating the first file takes the number, as a lease takes a chunk: of several commands one gets it. A job that starts
although its launch is void or was cancelled ends at once.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpcjobs.errors import DiskFullError, UsageError
from hpcjobs.masking import masked
from hpcjobs.run_folder.disk import disk_errors
from hpcjobs.run_folder.files import create_once, json_text, new_folder, read_json
from hpcjobs.run_folder.paths import RunPaths

_NAME = re.compile(r"(\d+)\.(?:(?P<fact>json|launched|cancelled|void|process\.json)|(?P<kind>\w+)\.(?P<job>.+))")


@dataclass
class LaunchFacts:
    """The files of one launch. `jobs` has the ids of each kind of job, which are several only for a moment."""

    facts: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)
    jobs: dict[str, set[str]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)


class LaunchFiles:
    """The folder of the launches of a run."""

    def __init__(self, paths: RunPaths) -> None:
        self.folder = paths.launches

    def list(self) -> dict[int, LaunchFacts]:
        """The files by launch. Launches without their first file are left out."""
        found: dict[int, LaunchFacts] = {}
        for entry in self.folder.iterdir() if self.folder.is_dir() else ():
            if match := _NAME.fullmatch(entry.name):
                _add(found.setdefault(int(match[1]), LaunchFacts()), match)
        return {number: found[number] for number in sorted(found) if "json" in found[number].facts}

    def take(self, number: int, values: Mapping[str, object]) -> bool:
        """Create a launch; False if another command has taken its number. Raises a UsageError if the run is gone."""
        self._make()
        return create_once(self._path(number, "json"), json_text(dict(values)))

    def note_key(self, number: int, kind: str, key: str, script: str) -> None:
        """Record a job before it is queued."""
        create_once(self._path(number, f"{kind}.key.json"), json_text({"key": key, "script": script}))

    def note_job(self, number: int, kind: str, job_id: str) -> None:
        """Record the id of a job."""
        create_once(self._path(number, f"{kind}.job-{job_id}"), "")

    def note_refused(self, number: int, kind: str, why: str) -> None:
        """Record that a job was not queued."""
        create_once(self._path(number, f"{kind}.refused"), masked(why))

    def note_process(self, number: int, identity: Mapping[str, object]) -> bool:
        """Record the supervisor; False if there is one already."""
        return create_once(self._path(number, "process.json"), json_text(dict(identity)))

    def mark(self, number: int, fact: str, why: str = "") -> None:
        """Record that a launch is `launched`, `cancelled` or `void`."""
        self._make()
        create_once(self._path(number, fact), masked(why))

    def marked(self, number: int, *facts: str) -> bool:
        """Whether a launch has one of these marks."""
        return any(self._path(number, fact).exists() for fact in facts)

    def read(self, number: int, name: str = "json") -> Any:
        """The JSON of a launch's file."""
        return read_json(self._path(number, name))

    def text(self, number: int, name: str) -> str:
        """The text of a launch's file."""
        return self._path(number, name).read_text(encoding="utf-8", errors="replace")

    def _make(self) -> None:
        """Make the folder, but no folder of a run that was removed meanwhile."""
        try:
            with disk_errors(self.folder):
                if not self.folder.is_dir():
                    with contextlib.suppress(FileExistsError):  # another command is as quick
                        new_folder(self.folder)
        except FileNotFoundError:
            raise UsageError(f"{self.folder.parent} is gone: another command has removed this run") from None

    def _path(self, number: int, name: str) -> Path:
        return self.folder / f"{number}.{name}"


def begin_job(paths: RunPaths, number: int, kind: str, job_id: str | None, records: bool = True) -> bool:
    """Record, from within a job, which job it is; False if its launch is void or was cancelled, so that it must end.

    Whoever cancels a launch marks it before it looks for its jobs: one of both sees the other. `records`: of many ranks
    one does.
    """
    files = LaunchFiles(paths)
    if job_id and records:
        with contextlib.suppress(DiskFullError):
            files.note_job(number, kind, job_id)
    return not files.marked(number, "cancelled", "void")


def _add(launch: LaunchFacts, match: re.Match[str]) -> None:
    if match["fact"]:
        launch.facts.add(match["fact"])
    elif match["job"] == "key.json":
        launch.keys.add(match["kind"])
    elif match["job"] == "refused":
        launch.refused.add(match["kind"])
    elif match["job"].startswith("job-"):
        launch.jobs.setdefault(match["kind"], set()).add(match["job"].removeprefix("job-"))
