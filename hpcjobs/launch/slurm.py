"""Typed calls of squeue, sacct, scontrol, sbatch and scancel.

For Slurm 20.11 and later: only plain-text output that has been stable since is parsed.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from hpcjobs.errors import HpcJobsError, LaunchError
from hpcjobs.launch.job_states import JobState as JobState
from hpcjobs.launch.programs import available as available
from hpcjobs.launch.programs import clean_environment as clean_environment
from hpcjobs.launch.programs import run, words
from hpcjobs.launch.queue import commands
from hpcjobs.launch.queue import find_submitted as find_submitted
from hpcjobs.launch.queue import job_states as job_states
from hpcjobs.launch.queue import one_look as one_look

_PAUSE = 1.0
# How long after a lost reply of sbatch its job may still appear in the queue (seconds).
_LOST_SECONDS = 30.0
# How long squeue may take to say whether it is there (seconds).
_ANSWER_SECONDS = 10.0
# Errors of sbatch after which the job may be queued all the same (slurm_errno(3) and the RPC layer).
_UNSURE = re.compile(
    r"timed out|Unable to contact|Zero Bytes|Connection (refused|reset)|communication|Resource temporarily|try again",
    re.IGNORECASE,
)
# Slurm's default (slurm.conf(5)).
_MAX_ARRAY_SIZE = 1001


def submit(script: Path, key: str, patience: float = 0.0) -> str:
    """Queue a batch script and return the job id. Its file name contains the unique `key`; at most one job results.

    If sbatch fails, or its reply is lost, the queue is searched for the key. A LaunchError has sbatch's message.
    `patience` is how long to retry when slurmctld does not answer (seconds).
    """
    deadline, again = time.monotonic() + patience, False
    while True:
        trouble = _sbatch(script)
        if isinstance(trouble, str):
            return _only(key, trouble) if again else trouble
        trouble.unsure = trouble.unsure or again  # the first one may still come
        try:
            if job_id := _look_for(key, trouble):
                return _only(key, job_id) if again else job_id
        except UnsureError:
            if time.monotonic() > deadline:
                raise
        if not trouble.unsure:
            raise trouble
        if time.monotonic() > deadline:
            raise LaunchError(f"{trouble}; squeue answers, and has no such job: nothing was queued; next: try again")
        again = True
        time.sleep(_PAUSE)


def _only(key: str, job_id: str) -> str:
    """`job_id`, after cancelling other jobs with the same key, whose submission had seemed lost."""
    with contextlib.suppress(LaunchError):
        cancel({other for other, command in commands() if key in command} - {job_id})
    return job_id


class UnsureError(HpcJobsError):
    """Slurm does not answer, and the job may be queued or not: the run folder must be kept."""


class _Refusal(LaunchError):
    """sbatch failed. `unsure`: the job may be queued all the same."""

    def __init__(self, words: str, unsure: bool) -> None:
        super().__init__(words)
        self.unsure = unsure


def _sbatch(script: Path) -> str | _Refusal:
    try:
        done = run(["sbatch", "--parsable", str(script)])
    except LaunchError as error:
        return _Refusal(str(error), shutil.which("sbatch") is not None)
    match = re.search(r"^(\d+)(;\S+)?\s*$", done.stdout, re.MULTILINE)
    if done.returncode == 0 and match:
        return match[1]
    if done.returncode == 0:
        return _Refusal(f"sbatch gave no job id: {done.stdout!r} {done.stderr!r}", False)
    unsure = bool(_UNSURE.search(done.stderr))
    return _Refusal(f"sbatch {'has failed' if unsure else 'refused the job'}: {words(done.stderr)}", unsure)


def _look_for(key: str, trouble: _Refusal) -> str | None:
    """The job with this key; None if there is none. A lost submission may still arrive for a while."""
    deadline = time.monotonic() + (_LOST_SECONDS if trouble.unsure else 0.0)
    while True:
        try:
            found = find_submitted([key], max(deadline - time.monotonic(), _ANSWER_SECONDS)).get(key)
            if found or time.monotonic() > deadline:
                return found
        except LaunchError as error:
            if not trouble.unsure:
                return None
            if time.monotonic() > deadline:
                raise UnsureError(
                    f"{trouble}; whether the job is queued is not known: {error}; next, when scontrol ping "
                    "says that slurmctld is up: hpcjobs status last, which finds the job by its key; then hpcjobs "
                    "cancel or resume"
                ) from None
        time.sleep(_PAUSE)


def limits() -> dict[str, str]:
    """`scontrol show config` as key -> value; empty if it does not answer."""
    try:
        done = run(["scontrol", "show", "config"])
    except LaunchError:
        return {}
    pairs = (line.partition("=") for line in done.stdout.splitlines())
    return {key.strip(): value.strip() for key, equals, value in pairs if equals}


def most_array_tasks() -> int:
    """The largest number of tasks in one job array. MaxArraySize is one above the highest index (slurm.conf(5))."""
    size = limits().get("MaxArraySize", "")
    return int(size) if size.isdigit() and int(size) > 0 else _MAX_ARRAY_SIZE


def cancel(job_ids: Iterable[str]) -> None:
    """Cancel these jobs. Jobs that have ended are no error; a LaunchError if scancel fails."""
    ids = [job_id for job_id in job_ids if job_id.isdigit()]
    if ids:
        done = run(["scancel", *ids])
        if done.returncode and "Invalid job id" not in done.stderr:
            raise LaunchError(f"scancel {' '.join(ids)}: {words(done.stderr)}")


def send(job_ids: Iterable[str], signal: str) -> None:
    """Send a signal to every process of the steps of these jobs, not to their batch scripts."""
    ids = [job_id for job_id in job_ids if job_id.isdigit()]
    if ids:
        done = run(["scancel", f"--signal={signal}", *ids])
        if done.returncode and "Invalid job id" not in done.stderr:
            raise LaunchError(f"scancel --signal={signal} {' '.join(ids)}: {words(done.stderr)}")


def host_names(nodes: str) -> list[str]:
    """The nodes in a list as Slurm writes it: `node[1-2,4]` is three. Raises a LaunchError."""
    done = run(["scontrol", "show", "hostnames", nodes])
    if done.returncode:
        raise LaunchError(f"scontrol show hostnames {nodes}: {words(done.stderr)}")
    return done.stdout.split()


def down_nodes(names: Iterable[str]) -> set[str]:
    """Those of these nodes that Slurm has as down, or from which it hears nothing; none if it does not answer."""
    with contextlib.suppress(LaunchError):
        done = run(["sinfo", "--noheader", "--Node", f"--nodes={','.join(names)}", "--format=%N %T"])
        pairs = (line.split() for line in done.stdout.splitlines())
        return {pair[0] for pair in pairs if len(pair) == 2 and re.match(r"down|fail|.*\*$", pair[1])}
    return set()


def end_steps(job_id: str) -> None:
    """End the steps of a job, and not the job. Raises a LaunchError if Slurm does not answer."""
    listed = run(["squeue", "--noheader", "--steps", f"--jobs={job_id}", "--format=%i"]).stdout.split()
    if steps := [step for step in listed if step.rpartition(".")[2].isdigit()]:
        run(["scancel", *steps])
