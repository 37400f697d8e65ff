"""A run of calls as its jobs see it: which have an outcome, and whether the run is over."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from dataclasses import dataclass

from hpcjobs.commands.status import Status, read_status
from hpcjobs.errors import HpcJobsError
from hpcjobs.run_folder.calls import CallFacts, Calls
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity
from hpcjobs.run_folder.run_state import RunState
from hpcjobs.run_folder.submission import read_launches

# Between two looks at the queue, between two at the folder (seconds), and how much longer than a look the pause is.
_QUEUE, _FOLDER, _TIMES = 2.0, 0.02, 5.0
# How long a run is over before that is believed: files of other machines may show later, and a merge may start it anew.
_SETTLED = {"local": 1.0}
_SETTLED_SLURM = 10.0
# Fewer calls than this are looked up one by one.
_FEW = 50
_SUFFIX = "_result.pkl"


@functools.lru_cache(maxsize=1024)
def watch_of(paths: RunPaths) -> RunWatch:
    """The watch that all jobs of a run share in this process."""
    return RunWatch(paths)


@dataclass
class _Look:
    """When something was looked at, and how long it took."""

    at: float = float("-inf")
    took: float = 0.0

    def is_fresh(self, least: float) -> bool:
        return time.monotonic() - self.at < max(least, _TIMES * self.took)


class RunWatch:
    """Looks at the files of a run, and at the queue, as seldom as many jobs that ask often allow."""

    def __init__(self, paths: RunPaths) -> None:
        self.paths = paths
        self._ended: set[str] = set()
        self._listed, self._asked = _Look(), _Look()
        self._status: Status | None = None
        self._over_since: float | None = None

    @functools.cached_property
    def calls(self) -> Calls:
        """The calls of the run."""
        return Calls(self.paths)

    @property
    def facts(self) -> CallFacts:
        """What holds for all calls of the run."""
        return self.calls.facts

    def has_ended(self, name: str) -> bool:
        """Whether there is an outcome, given the name of its file."""
        if len(self.calls) <= _FEW:
            return (self.paths.jobs / name).exists()
        if name not in self._ended:
            self._list()
        return name in self._ended

    def forget(self, name: str) -> None:
        """Forget an outcome that was put aside meanwhile, as by `hpcjobs resume --errors`."""
        self._ended.discard(name)

    def note_ended(self, name: str) -> int:
        """Note an outcome that this process has made; returns how many there are."""
        self._ended.add(name)
        return len(self._ended)

    def _list(self) -> None:
        if self._listed.is_fresh(_FOLDER):
            return
        began = time.monotonic()
        with contextlib.suppress(FileNotFoundError), os.scandir(self.paths.jobs) as entries:
            self._ended |= {entry.name for entry in entries if entry.name.endswith(_SUFFIX)}
        now = time.monotonic()
        self._listed = _Look(now, now - began)

    def status(self, force: bool = False) -> Status | None:
        """The status of the run, at most as old as looks at the queue are apart; None if it cannot be read."""
        if force or not self._asked.is_fresh(_QUEUE):
            began = time.monotonic()
            with contextlib.suppress(HpcJobsError, OSError):
                self._status = read_status(self.paths)
            now = time.monotonic()
            self._asked = _Look(now, now - began)
        return self._status

    def is_over(self, force: bool = False) -> bool:
        """Whether nothing of the run will go on by itself, so that what has no outcome will have none."""
        launches = read_launches(self.paths)
        last = launches[-1] if launches else None
        if last and last.supervisor and not Identity(**last.supervisor).is_dead():
            self._over_since = None
            return False
        status = self.status(force)
        if status is None or not status.over or status.going or status.state == RunState.UNKNOWN:
            self._over_since = None
            return False
        now = time.monotonic()
        self._over_since = now if self._over_since is None else self._over_since
        return now - self._over_since >= _SETTLED.get(last.executor if last else "local", _SETTLED_SLURM)
