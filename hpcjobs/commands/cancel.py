"""cancel: end the jobs of a run, and nothing else. The run can be resumed."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from hpcjobs.config.resolve import read_config
from hpcjobs.errors import HpcJobsError, LaunchError
from hpcjobs.launch import slurm
from hpcjobs.launch.jobs import find_jobs, local_processes
from hpcjobs.run_folder.heartbeat import read_heartbeats
from hpcjobs.run_folder.job_kinds import kind_of
from hpcjobs.run_folder.launch_files import LaunchFiles
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity, children_of
from hpcjobs.run_folder.submission import Launch, next_number, read_launches, write_submission

_GRACE_SECONDS = 20.0


def cancel(paths: RunPaths) -> list[str]:
    """End the jobs and local processes of every launch of a run; returns a text for each.

    Each launch is marked before its jobs are looked for: a command that is queueing them sees the mark after it has
    recorded one, and a job that starts later ends at once. Launches that appear meanwhile are ended, too.
    """
    ended: dict[str, None] = {}
    _warn(paths)
    number = -1
    while number != (number := next_number(paths)):
        for launch in _mark_live(paths):
            ended |= dict.fromkeys(_end(paths, launch))
    return list(ended)


def _warn(paths: RunPaths) -> None:
    """Send a program that is to be warned (`cluster.warn`) its signal, and give it the time that it has before a limit.

    It is cancelled as soon as it has ended. A config that cannot be read is no reason not to cancel.
    """
    warn = None
    with contextlib.suppress(HpcJobsError, OSError, ValueError, KeyError):
        warn = read_config(paths.config).cluster.warn if kind_of(paths).alone else None
    launches = find_jobs(read_launches(paths)) if warn else []
    if warn is None or not (live := [one for one in launches if _live(paths, one)]):
        return
    files = LaunchFiles(paths)
    for launch in live:
        files.mark(launch.number, "cancelled")  # what is warned must not start again
        if launch.executor == "slurm":
            states = slurm.job_states(launch.work_jobs)
            with contextlib.suppress(LaunchError):  # no warning is no reason not to cancel
                slurm.send([job for job, state in states.items() if not state.over and not state.pending], warn.signal)
        else:
            _warn_here(paths, launch, warn.signal)
    deadline = time.monotonic() + warn.before
    while time.monotonic() < deadline and any(_works(paths, launch) for launch in live):
        time.sleep(0.5)


def _works(paths: RunPaths, launch: Launch) -> bool:
    """Whether a rank of this launch has not ended."""
    mine = [one for one in read_heartbeats(paths.heartbeats) if launch.owns(one.attempt)]
    return any(one.ended_at is None and not Identity(**one.identity).is_dead() for one in mine)


def _warn_here(paths: RunPaths, launch: Launch, name: str) -> None:
    """The signal for the ranks of this machine, and for their programs."""
    for vitals in read_heartbeats(paths.heartbeats):
        rank = Identity(**vitals.identity)
        if launch.owns(vitals.attempt) and vitals.ended_at is None and not rank.is_dead():
            for pid in (rank.pid, *children_of(rank.pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.Signals[f"SIG{name}"])


def _mark_live(paths: RunPaths) -> list[Launch]:
    """The launches of which something lives or may come, with the jobs that were there after they were marked."""
    files = LaunchFiles(paths)
    live = {one.number for one in find_jobs(read_launches(paths)) if not one.launched or _live(paths, one)}
    for number in live & files.list().keys():
        files.mark(number, "cancelled")
    if live:
        write_submission(paths)
    return [one for one in find_jobs(read_launches(paths)) if one.number in live]


def _live(paths: RunPaths, launch: Launch) -> bool:
    return bool(_live_jobs(launch) if launch.executor == "slurm" else _members(paths, launch))


def _end(paths: RunPaths, launch: Launch) -> list[str]:
    if launch.executor == "slurm":
        live = _live_jobs(launch)
        slurm.cancel(live)
        queueing = [f"the launch by process {launch.by['pid']} on {launch.host}"] if launch.starting else []
        return [f"job {job_id}" for job_id in live] + queueing
    if not (members := _members(paths, launch)):
        return []
    _end_processes(paths, launch, members)
    pid = launch.supervisor.get("pid", members[0].pid)
    return [f"local ranks (process group {pid})"]


def _live_jobs(launch: Launch) -> list[str]:
    states = slurm.job_states(list(launch.jobs.values())) if launch.jobs else {}
    return [job_id for job_id, state in states.items() if not state.over and state.source != "none"]


def _members(paths: RunPaths, launch: Launch) -> list[Identity]:
    """The living processes of a local launch, wherever they come from.

    Launches of earlier versions have no key: theirs are the supervisor's process group, if that is still its own.
    """
    if launch.executor != "local":
        return []
    found = local_processes(launch)
    if launch.key or not launch.supervisor:
        return found
    supervisor = Identity(**launch.supervisor)
    if supervisor.machine != Identity.own().machine:
        return []
    for vitals in read_heartbeats(paths.heartbeats) if launch.supervisor else ():
        rank = Identity(**vitals.identity)
        with contextlib.suppress(ProcessLookupError):
            if rank.machine == supervisor.machine and not rank.is_dead() and os.getpgid(rank.pid) == supervisor.pid:
                found.append(rank)
    return found


def _end_processes(paths: RunPaths, launch: Launch, members: list[Identity]) -> None:
    """Terminate these processes, and kill what is left after a grace period."""
    group = None if launch.key else int(launch.supervisor["pid"])
    _signal(members, group, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_SECONDS
    while time.monotonic() < deadline and _members(paths, launch):
        time.sleep(0.1)
    deadline = time.monotonic() + _GRACE_SECONDS
    while time.monotonic() < deadline and (members := _members(paths, launch)):  # one may just start another
        _signal(members, group, signal.SIGKILL)
        time.sleep(0.05)


def _signal(members: list[Identity], group: int | None, number: signal.Signals) -> None:
    if group is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number)
        return
    for member in members:
        member.send(number)
