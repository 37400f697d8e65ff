"""SIGTERM and USR2: a rank drains, or ends by an exception."""

from __future__ import annotations

import logging
import signal
from types import FrameType

from hpcjobs.distributed.drain import Drain

log = logging.getLogger(__name__)


class Terminated(SystemExit):
    """Slurm or the user asked this rank to end. No Exception: engines take those for a sample's fault."""

    def __init__(self, reason: str) -> None:
        super().__init__(143)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class SignalHandlers:
    """SIGTERM and USR2 go to the drain. A rank that has nothing to drain ends by an exception in its main thread.

    submitit ignores SIGTERM, so that a cancelled rank would work on until it is killed, and on USR2 it would end
    rank 0 alone.
    """

    def __init__(self, drain: Drain) -> None:
        self._drain, self._warned = drain, False

    def __enter__(self) -> None:
        self._before = {signal.SIGTERM: signal.signal(signal.SIGTERM, self._end)}
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
