"""Drain: when a rank has to stop, and whether a sample that starts now would finish in time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

# Seconds kept free between an orderly end and SIGKILL.
_RESERVE_SECONDS = 2.0
# Slurm may send the warning up to a minute early, and checks time limits once a minute.
_SLACK_SECONDS = 75.0
_MOST_MARGIN_SECONDS = 30.0
TIME_LIMIT, PREEMPTION = "the time limit", "warned by SIGUSR2: the job is to be preempted"
# What ends a program's rank that wants to be started again.
ASKS_AGAIN = "it asks to be started again"
# How long before the time limit Slurm is asked to send SIGUSR2.
WARNING_SECONDS = 90


def drain_margin(configured: float | None, minutes: int) -> float:
    """Seconds kept free before the time limit: `configured`, else a twentieth of the limit, between 2 and 30 s."""
    return configured if configured is not None else min(_MOST_MARGIN_SECONDS, max(2.0, minutes * 60 / 20))


@dataclass(frozen=True)
class Allocation:
    """The end of this rank's allocation, times in seconds.

    `ends_at` is Unix time, None if there is no limit or it is unknown. Slurm sends USR2 `warning` seconds before it.
    SIGKILL follows `kill_wait` seconds after SIGTERM.
    """

    ends_at: float | None
    margin: float
    warning: float
    kill_wait: float


class Drain:
    """How long this rank may still run. Its methods may be called from a signal handler.

    Work that can drain sets `engaged`: it checks `has_room` before it starts a sample, and gives back the rest.
    """

    def __init__(self, allocation: Allocation, clock: Callable[[], float] = time.time) -> None:
        self._allocation, self._clock = allocation, clock
        self._leave_at = math.inf if allocation.ends_at is None else allocation.ends_at - allocation.margin
        self.reason: str | None = None
        self.engaged = False

    def terminate(self) -> None:
        """Handle SIGTERM: SIGKILL will follow, so nothing new may start."""
        self._set_reason("ended by SIGTERM: cancelled, preempted or out of time")
        self._leave_by(self._clock() + max(0.5, self._allocation.kill_wait - _RESERVE_SECONDS))

    def warn(self) -> None:
        """Handle USR2: the time limit is near. If it is not, the job is being preempted, and nothing new may start."""
        ends_at = self._allocation.ends_at
        if ends_at is None or ends_at - self._clock() > self._allocation.warning + _SLACK_SECONDS:
            self._set_reason(PREEMPTION)

    def has_room(self, seconds: float) -> bool:
        """Whether work of `seconds` that starts now ends in time. Once False, it stays False."""
        if self.reason is None and seconds > self.left():
            self._set_reason(TIME_LIMIT)
        return self.reason is None

    def left(self) -> float:
        """Seconds until this rank must have stopped; inf if no end is known."""
        return self._leave_at - self._clock()

    def _leave_by(self, moment: float) -> None:
        self._leave_at = min(self._leave_at, moment)

    def _set_reason(self, reason: str) -> None:
        self.reason = self.reason or reason
