"""The watchdog: a thread that ends a rank that is out of time or makes no progress."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpcjobs.distributed.drain import TIME_LIMIT, Drain
from hpcjobs.run_folder.files import open_file
from hpcjobs.run_folder.heartbeat import Heartbeat
from hpcjobs.run_folder.rank_state import RankState

log = logging.getLogger(__name__)
_TICK_SECONDS = 0.2
# States in which samples are expected. Slow loading is only reported: weights may take long.
_PRODUCING = (RankState.WORKING, RankState.DRAINING)


@dataclass(frozen=True)
class Limits:
    """Limits in seconds.

    After `progress` without a finished sample a rank is hung. A gap of `stall` between two ticks of the thread means
    that the process was stopped, and others may have taken its chunks.
    """

    progress: float
    stall: float


class Watchdog:
    """Ends a rank that cannot end itself, after `let_go` has given its chunks back.

    Its clock is the sum of its own ticks, so time in which the process was stopped does not count.
    """

    def __init__(self, heartbeat: Heartbeat, drain: Drain, limits: Limits, stacks: Path) -> None:
        self.let_go: Callable[[str, bool], bool] = lambda why, hung: True
        self._heartbeat, self._drain, self._limits, self._stacks = heartbeat, drain, limits, stacks
        self._stop, self._idle, self._last_progress = threading.Event(), 0.0, (-1, "")
        self._stalled = False
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def stalled(self) -> bool:
        """Whether the process has been stopped for long since the last call."""
        stalled, self._stalled = self._stalled, False
        return stalled

    def _run(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(_TICK_SECONDS):
            now = time.monotonic()
            gap, last = now - last, now
            self._stalled = self._stalled or gap > self._limits.stall
            self._look(min(gap, 2 * _TICK_SECONDS))

    def _look(self, passed: float) -> None:
        vitals = self._heartbeat.vitals
        progress = (vitals.samples, vitals.state)
        self._idle = self._idle + passed if progress == self._last_progress else 0.0
        self._last_progress = progress
        if self._drain.engaged and self._drain.left() <= 0:
            self._leave(f"drained: {self._drain.reason or TIME_LIMIT}", hung=False)
        elif self._idle > self._limits.progress and (vitals.state == RankState.LOADING or self._produces):
            self._idle = 0.0
            self._report(vitals.state)

    @property
    def _produces(self) -> bool:
        return self._drain.engaged and self._heartbeat.vitals.state in _PRODUCING

    def _report(self, state: RankState) -> None:
        """Report a rank without progress, with its stack traces, and end it if it holds samples."""
        with contextlib.suppress(OSError):  # a full disk must not end this thread
            with open(open_file(self._stacks, os.O_WRONLY | os.O_APPEND), "w") as file:
                faulthandler.dump_traceback(file, all_threads=True)
        index = self._heartbeat.vitals.last_index
        since = "since it began" if index is None else f"since sample {index}"
        message = f"hung: no progress in {self._limits.progress:g} s while {state}, {since}; stacks in {self._stacks}"
        log.error("%s", message)
        self._heartbeat.vitals.first_error = message[:400]
        self._heartbeat.write()
        if self._produces:
            self._leave(message, hung=True)

    def _leave(self, why: str, hung: bool) -> None:
        """Give all chunks back and end the process, whatever its main thread is doing."""
        given = self.let_go(why, hung)
        log.warning("the rank leaves with work in hand: %s", why)
        self._heartbeat.end_now(RankState.FAILED if hung else RankState.DRAINED, why)
        logging.shutdown()
        os._exit(1 if hung or not given else 0)  # with 1 the guard gives back what we could not
