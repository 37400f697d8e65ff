"""cancel: end the jobs of a run, and nothing else. The run can be resumed."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from hpcjobs.launch import slurm
from hpcjobs.launch.jobs import known_launches
from hpcjobs.run_folder.heartbeat import read_heartbeats
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity

_GRACE_SECONDS = 20.0


def cancel(paths: RunPaths) -> list[str]:
    """End the jobs and local processes recorded in submission.json; returns a text for each."""
    ended = []
    for launch in known_launches(paths):
        if launch.executor == "slurm":
            states = slurm.job_states(list(launch.jobs.values()))
            live = [job_id for job_id, state in states.items() if not state.over and state.source != "none"]
            slurm.cancel(live)
            ended += [f"job {job_id}" for job_id in live]
        elif launch.supervisor and (identity := Identity(**launch.supervisor)).machine == Identity.own().machine:
            ended += _end_session(identity) if _is_ours(paths, identity) else []
    return ended


def _is_ours(paths: RunPaths, supervisor: Identity) -> bool:
    """Whether the process group still belongs to the supervisor: it is alive, or its ranks are."""
    if not supervisor.is_dead():
        return True
    with contextlib.suppress(ProcessLookupError):
        ranks = [Identity(**vitals.identity) for vitals in read_heartbeats(paths.heartbeats)]
        live = [rank.pid for rank in ranks if rank.machine == supervisor.machine and not rank.is_dead()]
        return any(os.getpgid(pid) == supervisor.pid for pid in live)
    return False


def _end_session(supervisor: Identity) -> list[str]:
    """Terminate the supervisor's process group, and kill what is left after a grace period."""
    with contextlib.suppress(ProcessLookupError):  # it may end just now
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
