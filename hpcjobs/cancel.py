"""cancel: end what this run started, and nothing else. The run stays resumable."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from hpcjobs import slurm
from hpcjobs.identity import Identity
from hpcjobs.paths import RunPaths
from hpcjobs.submission import read_launches

_GRACE_SECONDS = 20.0


def cancel(paths: RunPaths) -> list[str]:
    """End the jobs and local processes recorded in submission.json; what was ended, in words."""
    said = []
    for launch in read_launches(paths):
        if launch.executor == "slurm":
            states = slurm.job_states(list(launch.jobs.values()))
            live = [job_id for job_id, state in states.items() if not state.over and state.source != "none"]
            slurm.cancel(live)
            said += [f"job {job_id}" for job_id in live]
        elif launch.supervisor and (identity := Identity(**launch.supervisor)).machine == Identity.own().machine:
            said += _end_session(identity)
    return said


def _end_session(supervisor: Identity) -> list[str]:
    """The supervisor leads a process group of its own: ask all of it to end, then make it."""
    if supervisor.is_dead():
        return []
    os.killpg(supervisor.pid, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_SECONDS
    while time.monotonic() < deadline and _group_lives(supervisor.pid):
        time.sleep(0.1)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(supervisor.pid, signal.SIGKILL)
    return [f"local ranks (process group {supervisor.pid})"]


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
