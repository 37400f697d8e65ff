"""Wait for a run, as `--wait` does."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from hpcjobs.errors import LaunchError
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity
from hpcjobs.run_folder.run_state import RunState
from hpcjobs.run_folder.submission import read_launches

if TYPE_CHECKING:
    from hpcjobs.commands.status import Status

_SETTLE_SECONDS = 8.0
_LOOK_SECONDS = 0.2
_UNKNOWN_SECONDS = 3600.0


def wait(paths: RunPaths, show: Callable[[Status], None], deadline: float = math.inf) -> int:
    """Wait until the run is over; returns its exit code. It only reads files and the queue, so it may be interrupted.

    `show` gets each status, one of them right after `deadline` (as time.monotonic()): it may raise to end the wait.
    Raises a LaunchError if Slurm has not answered for an hour and no rank shows activity.
    """
    from hpcjobs.commands.status import read_status

    pause, ended_since = 0.5, None
    while True:
        status = read_status(paths)
        show(status)
        judged = status.state != RunState.FAILED or (status.metrics and status.metrics.complete)
        if status.over and not status.going and judged:
            return status.exit_code()
        # A run that is over but still going, or failed, may be between two writes; if unknown, Slurm may just be busy.
        ended = status.over or status.state == RunState.UNKNOWN
        ended_since = (ended_since or time.monotonic()) if ended else None
        if ended_since is not None:
            passed = time.monotonic() - ended_since
            if status.over and passed > _SETTLE_SECONDS:
                return status.exit_code()
            if not status.over and passed > _UNKNOWN_SECONDS:
                raise LaunchError(f"{status.run}: {'; '.join(status.notes)}")
        sys.stdout.flush()
        left = deadline - time.monotonic()
        _sleep(paths, min(pause, left) if left > 0 else pause)
        pause = min(pause * 1.3, 5.0)


def _sleep(paths: RunPaths, seconds: float) -> None:
    """Sleep, but not beyond a new metrics.json or the end of a local supervisor: mostly the end of the run."""
    local = [Identity(**one.supervisor) for one in read_launches(paths)[-1:] if one.supervisor]
    alive = [one for one in local if not one.is_dead()]
    before, ends = _written(paths), time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        time.sleep(min(_LOOK_SECONDS, left))
        if _written(paths) != before or any(one.is_dead() for one in alive):
            return


def _written(paths: RunPaths) -> int:
    try:
        return paths.metrics.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
