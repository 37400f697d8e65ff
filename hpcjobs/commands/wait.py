"""Waiting for a run, as `--wait` does."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from hpcjobs.errors import LaunchError
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.run_state import RunState

if TYPE_CHECKING:
    from hpcjobs.commands.status import Status

_SETTLE_SECONDS = 8.0
_UNKNOWN_SECONDS = 3600.0


def wait(paths: RunPaths, show: Callable[[Status], None]) -> int:
    """Wait until the run is over; its exit code. It asks only files and the queue: it may be stopped and run again.

    A LaunchError where Slurm has not answered for an hour, and no rank shows life.
    """
    from hpcjobs.commands.status import read_status

    pause, odd_since = 0.5, None
    while True:
        status = read_status(paths)
        show(status)
        if status.over and not status.going and status.state != RunState.FAILED:
            return status.exit_code()
        # What is over and still going, or failed, may be a moment between two files; what is unknown, a busy Slurm.
        odd = status.over or status.state == RunState.UNKNOWN
        odd_since = (odd_since or time.monotonic()) if odd else None
        if odd_since is not None:
            passed = time.monotonic() - odd_since
            if status.over and passed > _SETTLE_SECONDS:
                return status.exit_code()
            if not status.over and passed > _UNKNOWN_SECONDS:
                raise LaunchError(f"{status.run}: {'; '.join(status.notes)}; next: hpcjobs status {status.folder}")
        sys.stdout.flush()
        time.sleep(pause)
        pause = min(pause * 1.3, 5.0)
