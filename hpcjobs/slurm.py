"""squeue, sacct, scontrol, sbatch and scancel behind one small typed face.

Slurm 20.11 and later; only plain-text output that has been stable since is read.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcjobs.errors import LaunchError

_TIMEOUT = 60.0
# States after which a job does nothing more (man squeue, JOB STATE CODES).
_OVER = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "REVOKED", "TIMEOUT",
}  # fmt: skip
# What an enclosing job sets and sbatch would take for its own options (submitit#1782).
_KEEP = {"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT"}


@dataclass(frozen=True)
class JobState:
    """One job as Slurm sees it; `source` is squeue, sacct or none (Slurm has forgotten it)."""

    job_id: str
    state: str
    reason: str = ""
    nodes: str = ""
    exit_code: str = ""
    source: str = "squeue"

    @property
    def over(self) -> bool:
        return self.state.split()[0] in _OVER if self.state else False

    @property
    def pending(self) -> bool:
        return self.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "CONFIGURING")


def available() -> bool:
    """Whether Slurm's commands are here."""
    return shutil.which("sbatch") is not None and shutil.which("squeue") is not None


def clean_environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """`env` (default: this process's) without what an enclosing job or launcher left in it."""
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
        "ENVIRONMENT",
    }
    return {
        name: value for name, value in env.items() if name in _KEEP or not (name.startswith(leaks) or name in names)
    }


def submit(script: Path) -> str:
    """Queue a batch script; the job id. A LaunchError has sbatch's own words."""
    done = _run(["sbatch", "--parsable", str(script)], env=clean_environment())
    if done.returncode:
        raise LaunchError(f"sbatch refused the job: {_words(done.stderr)}")
    match = re.search(r"^(\d+)(;\S+)?\s*$", done.stdout, re.MULTILINE)
    if not match:
        raise LaunchError(f"sbatch gave no job id: {done.stdout!r} {done.stderr!r}")
    return match[1]


def test_only(script: Path) -> str | None:
    """None where sbatch would take the script, else its words (sbatch --test-only queues nothing)."""
    done = _run(["sbatch", "--test-only", str(script)], env=clean_environment())
    return _words(done.stderr) if done.returncode else None


def cancel(job_ids: Iterable[str]) -> None:
    """End these jobs; those that are over already are no error."""
    ids = [job_id for job_id in job_ids if job_id.isdigit()]
    if ids:
        done = _run(["scancel", *ids])
        if done.returncode and "Invalid job id" not in done.stderr:
            raise LaunchError(f"scancel {' '.join(ids)}: {_words(done.stderr)}")


def job_states(job_ids: Sequence[str]) -> dict[str, JobState]:
    """The state of each job: squeue's, else sacct's, else UNKNOWN with source none."""
    states = _squeue(job_ids)
    rest = [job_id for job_id in job_ids if job_id not in states]
    states |= _sacct(rest) if rest else {}
    return {job_id: states.get(job_id, JobState(job_id, "UNKNOWN", source="none")) for job_id in job_ids}


def _squeue(job_ids: Sequence[str]) -> dict[str, JobState]:
    """squeue by job id fails as a whole when one id is forgotten: ask for the user's jobs and pick."""
    done = _run(["squeue", "--noheader", "--states=all", "--me", "--format=%A|%T|%r|%N"])
    if done.returncode:  # --me came with Slurm 20.02
        done = _run(["squeue", "--noheader", "--states=all", "--user", str(os.getuid()), "--format=%A|%T|%r|%N"])
    if done.returncode:
        raise LaunchError(f"squeue does not answer: {_words(done.stderr)}")
    states = {}
    for line in done.stdout.splitlines():
        job_id, state, reason, nodes = line.strip().split("|", 3)
        if job_id in job_ids:
            states[job_id] = JobState(job_id, state, "" if reason == "None" else reason, nodes)
    return states


def _sacct(job_ids: Sequence[str]) -> dict[str, JobState]:
    """What accounting knows; nothing where slurmdbd is down or absent."""
    command = ["sacct", "--noheader", "--parsable2", "--allocations", "--format=JobIDRaw,State,NodeList,ExitCode"]
    try:
        done = _run([*command, f"--jobs={','.join(job_ids)}"])
    except LaunchError:
        return {}
    states = {}
    for line in done.stdout.splitlines() if done.returncode == 0 else ():
        job_id, state, nodes, exit_code = line.split("|", 3)
        states[job_id] = JobState(job_id, state, "", nodes, exit_code, "sacct")
    return states


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
