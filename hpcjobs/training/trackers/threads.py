"""Trackers of a training: told by rank 0, each from a thread of its own, so that none can hold or end a training."""

from __future__ import annotations

import importlib.util
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from hpcjobs.errors import ConfigError
from hpcjobs.training.steps import StepRecord, read_curve

if TYPE_CHECKING:
    from hpcjobs.worker.run import Work

log = logging.getLogger(__name__)
# How long the end of a run waits for trackers to take what is left, in seconds: of a finished one, and of one that is
# started again, which tells it then.
_PATIENCE, _INTERRUPTED = 60.0, 5.0
# So many steps are handed over at once.
_MOST = 100
_SECRET_NAME = re.compile(r"KEY|TOKEN|PASSWORD|SECRET", re.IGNORECASE)
_LOGIN = re.compile(r"//[^/@\s]+@")


class Tracker(Protocol):
    """One library. All is called from one thread, in this order; anything may be raised."""

    def start(self) -> None:
        """Begin, or go on with what an earlier start of this run began."""

    def tell(self, records: Sequence[StepRecord]) -> None:
        """Steps in order; those that it has already it passes over."""

    def finish(self, complete: bool) -> None:
        """All was told: the run is complete, or goes on at its next start."""


def check_trackers(names: Sequence[str]) -> None:
    """A ConfigError that says what to install where a tracker is not there. Nothing is imported."""
    missing = [name for name in names if not _is_there(name)]
    if missing:
        raise ConfigError(
            f"train.trackers: {', '.join(missing)} cannot be imported; next: pip install {' '.join(missing)}"
        )


def _is_there(name: str) -> bool:
    """Whether it is installed; a plain folder of that name, as wandb leaves one where it runs, has no origin."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None


def said(error: BaseException) -> str:
    """What to write into a log of what a library has raised."""
    return masked(f"{type(error).__name__}: {error}")[:600]


def masked(text: str) -> str:
    """`text` on one line without what the environment keeps secret, and without logins in addresses."""
    for name, value in os.environ.items():
        if len(value) > 3 and _SECRET_NAME.search(name):
            text = text.replace(value, "***")
    return _LOGIN.sub("//***@", " ".join(text.split()))


class Trackers:
    """All trackers of a run on rank 0, none on the others."""

    def __init__(self, work: Work) -> None:
        from hpcjobs.training.trackers.libraries import make_tracker

        names = work.config.train.trackers if work.rank.is_main else ()
        self._paths = work.paths
        self._tellers = [Teller(name, make_tracker(name, work)) for name in names]

    def start(self, done: int) -> None:
        """Tell them of the steps until `done`, of which an earlier start may have told them some or none."""
        if not self._tellers:
            return
        steps = read_curve(self._paths).steps
        for teller in self._tellers:
            teller.start()
            for step in sorted(step for step in steps if step <= done):
                teller.tell(steps[step])

    def tell(self, record: StepRecord) -> None:
        """A finished step; returns at once."""
        for teller in self._tellers:
            teller.tell(record)

    def close(self, complete: bool) -> None:
        """Let them take what is left, for a while: none may keep an allocation from ending."""
        for teller in self._tellers:
            teller.tell(complete)
        deadline = time.monotonic() + (_PATIENCE if complete else _INTERRUPTED)
        for teller in self._tellers:
            teller.wait(deadline)


class Teller(threading.Thread):
    """A tracker's thread. What the tracker raises is said once, and the tracker left alone from then on."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        super().__init__(name=f"tracker {name}", daemon=True)
        self._tracker = tracker
        self._told: queue.SimpleQueue[StepRecord | bool] = queue.SimpleQueue()

    def tell(self, value: StepRecord | bool) -> None:
        """A step, or at the end whether the run is complete."""
        self._told.put(value)

    def wait(self, deadline: float) -> None:
        """Until it has taken all, or the monotonic clock says `deadline`."""
        if not self.is_alive():
            return
        self.join(max(0.0, deadline - time.monotonic()))
        if self.is_alive():
            log.warning("%s has not taken all in time: about %d steps are not told", self.name, self._told.qsize())

    def run(self) -> None:
        """Start the tracker, tell it all, and let it finish."""
        try:
            self._tracker.start()
            while True:
                records, end = self._next()
                if records:
                    self._tracker.tell(records)
                if end is not None:
                    return self._tracker.finish(end)
        except BaseException as error:  # a library may raise anything; nothing of it may end a training
            log.warning("%s: %s; the training goes on without it", self.name, said(error))

    def _next(self) -> tuple[list[StepRecord], bool | None]:
        """What is there, or the next that comes; and whether the run is complete, once that was said."""
        records: list[StepRecord] = []
        value = self._told.get()
        while not isinstance(value, bool):
            records.append(value)
            if len(records) >= _MOST or self._told.empty():
                return records, None
            value = self._told.get()
        return records, value
