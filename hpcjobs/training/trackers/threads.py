"""Trackers on rank 0, each in its own thread, so that none can delay or end a training."""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import TYPE_CHECKING

from hpcjobs.training.steps import StepRecord, read_curve
from hpcjobs.training.trackers.base import Tracker, error_message

if TYPE_CHECKING:
    from hpcjobs.distributed.work import Work

log = logging.getLogger(__name__)
# How long the end of a run waits for trackers (seconds): of a finished run, and of an interrupted one, whose next
# start logs the rest.
_PATIENCE, _INTERRUPTED = 60.0, 5.0
# The most steps per call.
_MOST = 100


class Trackers:
    """All trackers of a run on rank 0; none on other ranks."""

    def __init__(self, work: Work) -> None:
        from hpcjobs.training.trackers.libraries import make_tracker

        names = work.config.train.trackers if work.rank.is_main else ()
        self._paths = work.paths
        self._threads = [TrackerThread(name, make_tracker(name, work)) for name in names]

    def start(self, done: int) -> None:
        """Start the trackers, and log the steps up to `done`, which an earlier start may have logged in part."""
        if not self._threads:
            return
        steps = read_curve(self._paths).steps
        for thread in self._threads:
            thread.start()
            for step in sorted(step for step in steps if step <= done):
                thread.put(steps[step])

    def log_step(self, record: StepRecord) -> None:
        """Log a finished step. Returns at once."""
        for thread in self._threads:
            thread.put(record)

    def close(self, complete: bool) -> None:
        """Wait until all steps are logged, up to a limit: a tracker must not hold up the end of a job."""
        for thread in self._threads:
            thread.put(complete)
        deadline = time.monotonic() + (_PATIENCE if complete else _INTERRUPTED)
        for thread in self._threads:
            thread.wait(deadline)


class TrackerThread(threading.Thread):
    """The thread of a tracker. An error of the tracker is logged once, and the tracker is not used any more."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        super().__init__(name=f"tracker {name}", daemon=True)
        self._tracker = tracker
        self._queue: queue.SimpleQueue[StepRecord | bool] = queue.SimpleQueue()

    def put(self, value: StepRecord | bool) -> None:
        """Queue a step; at the end, whether the run is complete."""
        self._queue.put(value)

    def wait(self, deadline: float) -> None:
        """Wait until everything is logged, or until `deadline` (monotonic clock)."""
        if not self.is_alive():
            return
        self.join(max(0.0, deadline - time.monotonic()))
        if self.is_alive():
            log.warning("%s has not taken all in time: about %d steps are not told", self.name, self._queue.qsize())

    def run(self) -> None:
        """Start the tracker, log all queued steps, and finish."""
        try:
            self._tracker.start()
            while True:
                records, end = self._next()
                if records:
                    self._tracker.log_steps(records)
                if end is not None:
                    return self._tracker.finish(end)
        except BaseException as error:  # a library may raise anything; nothing of it may end a training
            log.warning("%s: %s; the training goes on without it", self.name, error_message(error))

    def _next(self) -> tuple[list[StepRecord], bool | None]:
        """The queued steps, waiting for at least one; and whether the run is complete, once that is known."""
        records: list[StepRecord] = []
        value = self._queue.get()
        while not isinstance(value, bool):
            records.append(value)
            if len(records) >= _MOST or self._queue.empty():
                return records, None
            value = self._queue.get()
        return records, value
