"""Typed calls of squeue, sacct, scontrol, sbatch and scancel.

For Slurm 20.11 and later: only plain-text output that has been stable since is parsed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcjobs.errors import HpcJobsError, LaunchError

_TIMEOUT = 60.0
_PAUSE = 1.0
# How long after a lost reply of sbatch its job may still appear in the queue (seconds).
_LOST_SECONDS = 30.0
# Errors of sbatch after which the job may be queued all the same (slurm_errno(3) and the RPC layer).
_UNSURE = re.compile(
    r"timed out|Unable to contact|Zero Bytes|Connection (refused|reset)|communication|Resource temporarily|try again",
    re.IGNORECASE,
)
# Slurm's default (slurm.conf(5)).
_MAX_ARRAY_SIZE = 1001
# States of jobs that have ended (squeue(1), JOB STATE CODES).
_OVER = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "REVOKED", "TIMEOUT",
}  # fmt: skip
# Variables to keep; all others of an enclosing job would be read as options by sbatch (submitit#1782).
_KEEP = {"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT"}


@dataclass(frozen=True, kw_only=True)
class JobState:
    """The state of a job; an array counts as one.

    `source` is squeue, sacct, none (Slurm has forgotten the job) or unreachable (Slurm does not answer).
    """

    job_id: str
    state: str
    reason: str = ""
    nodes: str = ""
    exit_code: str = ""
    source: str = "squeue"

    @property
    def over(self) -> bool:
        """Whether the job has ended."""
        return self.state.split()[0] in _OVER if self.state else False

    @property
    def cancelled(self) -> bool:
        """Whether the job was cancelled."""
        return self.state.startswith("CANCELLED")

    @property
    def pending(self) -> bool:
        """Whether the job waits in the queue."""
        return self.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "CONFIGURING")


def available() -> bool:
    """Whether Slurm's commands are on PATH."""
    return shutil.which("sbatch") is not None and shutil.which("squeue") is not None


def clean_environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """`env` (default: this process's) without variables of an enclosing job or launcher."""
    env = os.environ if env is None else env
    leaks = ("SLURM_", "SBATCH_", "SRUN_", "SUBMITIT_", "PMI_", "PMIX_", "TORCHELASTIC_")
    names = {
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
        "GROUP_RANK",
        "HPCJOBS_ATTEMPT",
        "HPCJOBS_LAUNCH",
        "HPCJOBS_END_TIME",
        "HPCJOBS_KILL_WAIT",
        "ENVIRONMENT",
    }
    return {
        name: value for name, value in env.items() if name in _KEEP or not (name.startswith(leaks) or name in names)
    }


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
        if not trouble.unsure or time.monotonic() > deadline:
            raise trouble
        again = True
        time.sleep(_PAUSE)


def _only(key: str, job_id: str) -> str:
    """`job_id`, after cancelling other jobs with the same key, whose submission had seemed lost."""
    with contextlib.suppress(LaunchError):
        cancel({other for other, command in _commands() if key in command} - {job_id})
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
        done = _run(["sbatch", "--parsable", str(script)], env=clean_environment())
    except LaunchError as error:
        return _Refusal(str(error), shutil.which("sbatch") is not None)
    match = re.search(r"^(\d+)(;\S+)?\s*$", done.stdout, re.MULTILINE)
    if done.returncode == 0 and match:
        return match[1]
    if done.returncode == 0:
        return _Refusal(f"sbatch gave no job id: {done.stdout!r} {done.stderr!r}", False)
    return _Refusal(f"sbatch refused the job: {_words(done.stderr)}", bool(_UNSURE.search(done.stderr)))


def _look_for(key: str, trouble: _Refusal) -> str | None:
    """The job with this key; None if there is none. A lost submission may still arrive for a while."""
    deadline = time.monotonic() + (_LOST_SECONDS if trouble.unsure else 0.0)
    while True:
        try:
            found = find_submitted([key]).get(key)
            if found or time.monotonic() > deadline:
                return found
        except LaunchError as error:
            if not trouble.unsure:
                return None
            if time.monotonic() > deadline:
                raise UnsureError(
                    f"{trouble}; whether the job is queued is not known: {error}; next, when Slurm answers again: "
                    "hpcjobs status, which finds the job by its key, then hpcjobs cancel or resume"
                ) from None
        time.sleep(_PAUSE)


def find_submitted(keys: Sequence[str]) -> dict[str, str]:
    """Key -> job id, for keys in the script names of jobs that the queue still knows."""
    found: dict[str, str] = {}
    for job_id, command in _commands() if keys else ():
        found |= {key: job_id for key in keys if key in command}
    return found


def _commands() -> Iterator[tuple[str, str]]:
    """(job id, script) of this user's jobs, without refused ones, which Slurm lists as ended without a node."""
    for line in _ask_squeue("%F|%T|%N|%o"):
        job_id, state, nodes, command = line.split("|", 3)
        if nodes or not JobState(job_id=job_id, state=state).over:
            yield job_id, command


def limits() -> dict[str, str]:
    """`scontrol show config` as key -> value; empty if it does not answer."""
    try:
        done = _run(["scontrol", "show", "config"])
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
        done = _run(["scancel", *ids])
        if done.returncode and "Invalid job id" not in done.stderr:
            raise LaunchError(f"scancel {' '.join(ids)}: {_words(done.stderr)}")


def job_states(job_ids: Sequence[str]) -> dict[str, JobState]:
    """Job id -> state, from squeue, else sacct, else UNKNOWN with source none."""
    states = _squeue(job_ids)
    rest = [job_id for job_id in job_ids if job_id not in states]
    states |= _sacct(rest) if rest else {}
    return {job_id: states.get(job_id, JobState(job_id=job_id, state="UNKNOWN", source="none")) for job_id in job_ids}


def _squeue(job_ids: Sequence[str]) -> dict[str, JobState]:
    """The states of jobs. squeue fails if any job id is forgotten, so all jobs of the user are listed."""
    found: dict[str, list[JobState]] = {}
    for line in _ask_squeue("%F|%T|%r|%N"):
        job_id, state, reason, nodes = line.split("|", 3)
        if job_id in job_ids:
            one = JobState(job_id=job_id, state=state, reason="" if reason == "None" else reason, nodes=nodes)
            found.setdefault(job_id, []).append(one)
    return {job_id: _as_one(states) for job_id, states in found.items()}


def _ask_squeue(layout: str) -> list[str]:
    """This user's jobs, one line each in squeue's `layout`; elements of an array are separate lines."""
    done = _run(["squeue", "--noheader", "--states=all", "--me", f"--format={layout}"])
    if done.returncode and "option" in done.stderr:  # --me came with Slurm 20.02
        done = _run(["squeue", "--noheader", "--states=all", "--user", str(os.getuid()), f"--format={layout}"])
    if done.returncode:
        raise LaunchError(f"squeue does not answer: {_words(done.stderr)}")
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _as_one(states: Sequence[JobState]) -> JobState:
    """The state of an array as one job: running if any element runs, pending if any is, else its worst state."""

    def place(state: JobState) -> int:
        if not state.over:
            return 1 if state.pending else 0
        return 3 if state.state == "COMPLETED" else 2

    first = min(states, key=place)
    nodes = ",".join(dict.fromkeys(state.nodes for state in states if state.nodes))
    return dataclasses.replace(first, nodes=nodes)


def _sacct(job_ids: Sequence[str]) -> dict[str, JobState]:
    """The states that accounting has; empty if slurmdbd is down or absent."""
    command = ["sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State,NodeList,ExitCode"]
    try:
        done = _run([*command, f"--jobs={','.join(job_ids)}"])
    except LaunchError:
        return {}
    found: dict[str, list[JobState]] = {}
    for line in done.stdout.splitlines() if done.returncode == 0 else ():
        job_id, state, nodes, exit_code = line.split("|", 3)
        array = job_id.partition("_")[0]
        found.setdefault(array, []).append(
            JobState(job_id=array, state=state, reason="", nodes=nodes, exit_code=exit_code, source="sacct")
        )
    return {job_id: _as_one(states) for job_id, states in found.items()}


def _run(command: Sequence[str], env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT, env=env, check=False, errors="replace"
        )
    except FileNotFoundError:
        raise LaunchError(f"{command[0]} is not here: this machine has no Slurm") from None
    except subprocess.TimeoutExpired:
        raise LaunchError(f"{command[0]} did not answer within {_TIMEOUT:g} s") from None


def _words(text: str) -> str:
    return " ".join(text.split()) or "no reason given"
