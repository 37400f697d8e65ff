"""SIGTERM and USR2: a rank drains, or ends with an exception."""

from __future__ import annotations

import logging
import signal
import threading
import time
from types import FrameType
from typing import Any

from hpcjobs.distributed.drain import Drain

log = logging.getLogger(__name__)
# Slurm signals a rank and its guard, which passes it on: within this time it is one signal.
_TOGETHER_SECONDS = 2.0


class Terminated(SystemExit):
    """Slurm or the user has ended this rank. Not an Exception, which engines would take for a failed sample."""

    def __init__(self, reason: str) -> None:
        super().__init__(143)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class Drained(SystemExit):
    """A program has ended before it was done, in order: it was warned, or asks to be started again."""

    def __init__(self, reason: str) -> None:
        super().__init__(0)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class Warned:
    """Notes that Slurm, or `hpcjobs cancel`, has warned this rank's program by a signal of the user's choice.

    Slurm sends it to every process of the step, so the program has it already. A handler, not SIG_IGN, which the
    program would inherit. Where that is SIGTERM, another one that comes later is no warning.
    """

    def __init__(self, name: str | None) -> None:
        self.number = int(signal.Signals[f"SIG{name}"]) if name else 0
        self.by: str | None = None
        self._at = 0.0

    def __enter__(self) -> Warned:
        if self.number:
            self._before = signal.signal(self.number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self.number:
            signal.signal(self.number, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        first, self._at = self.by is None, now if self.by is None else self._at
        self.by = signal.Signals(number).name
        if number == signal.SIGTERM and not first and now - self._at > _TOGETHER_SECONDS and callable(self._before):
            self._before(number, frame)


class SignalHandlers:
    """Passes SIGTERM and USR2 to the drain. If nothing drains, SIGTERM raises Terminated in the main thread.

    submitit ignores SIGTERM, so a cancelled rank would run until it is killed; on USR2 it would end rank 0 only.
    """

    def __init__(self, drain: Drain) -> None:
        self._drain, self._warned = drain, False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():  # of a debug run in a thread of the user's
            return
        self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._end)
        self._before[signal.SIGUSR2] = signal.signal(signal.SIGUSR2, self._warn)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _warn(self, number: int, frame: FrameType | None) -> None:
        self._drain.warn()
        if not self._warned:  # Slurm warns this process and its guard, which passes it on
            log.warning("Slurm says that this job's time is nearly over")
        self._warned = True

    def _end(self, number: int, frame: FrameType | None) -> None:
        first = self._drain.reason is None
        self._drain.terminate()
        if self._drain.engaged:
            if first:
                log.warning("SIGTERM: what is in hand is finished as far as %.0f s allow", self._drain.left())
            return
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated(self._drain.reason or "")
