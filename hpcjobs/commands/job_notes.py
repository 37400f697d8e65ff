"""The jobs of a run as Slurm has them, and what is to be said of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hpcjobs.errors import LaunchError
from hpcjobs.launch import slurm
from hpcjobs.launch.job_states import note
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.submission import Launch


def jobs_of(launches: Sequence[Launch]) -> tuple[dict[str, slurm.JobState], list[str]]:
    """The jobs of the newest launch and of those it joined, by kind. Of merge jobs only the newest counts.

    The notes say what is not known of them, and why.
    """
    ids = job_ids(launches)
    if not ids:
        return {}, []
    try:
        states = slurm.job_states(list(ids.values()))
    except LaunchError as error:
        unknown = {
            kind: slurm.JobState(job_id=job_id, state="UNKNOWN", source="unreachable") for kind, job_id in ids.items()
        }
        return unknown, [f"{error}: the state of the jobs is not known"]
    jobs = {kind: states[job_id] for kind, job_id in ids.items()}
    notes = [
        f"job {job.job_id} ({kind}) is known neither to squeue nor to sacct: it ended long ago, or accounting is down"
        for kind, job in jobs.items()
        if job.source == "none"
    ]
    return jobs, notes


def job_ids(launches: Sequence[Launch]) -> dict[str, str]:
    """The ids of the jobs that `jobs_of` tells of, by kind."""
    ids: dict[str, str] = {}
    for launch in launches:
        for kind, job_id in launch.jobs.items() if launch.executor == "slurm" else ():
            ids[kind if kind == "merge" or kind not in ids else f"{kind}-{launch.number}"] = job_id
    return ids


def job_notes(
    jobs: Mapping[str, slurm.JobState], launches: Sequence[Launch], paths: RunPaths, over: bool, told: bool
) -> list[str]:
    """Why jobs have died or stand still, and what to change.

    `over`: the run has ended, so only jobs that have ended matter, and before that only the others. `told`: a rank has
    told its error, which says more than that its job failed.
    """
    facts = {"run": str(paths.root)} | _asked_for(launches)
    wanted = {
        kind: job
        for kind, job in jobs.items()
        if job.over is over and not (job.state == "FAILED" and (told or kind == "merge") and not _signalled(job))
    }
    return [text for kind, job in wanted.items() if (text := note(job, kind, facts))]


def _signalled(job: slurm.JobState) -> bool:
    return job.reason.startswith("RaisedSignal")


def _asked_for(launches: Sequence[Launch]) -> dict[str, str]:
    """The time limit and the memory of the newest launch's ranks."""
    script = next((text for kind, text in launches[-1].scripts.items() if kind != "merge"), "") if launches else ""
    time = re.search(r"^#SBATCH --time=(\d+)$", script, re.MULTILINE)
    mem = re.search(r"^#SBATCH --(mem\S*)$", script, re.MULTILINE)
    return {
        "time": f"{time[1]} min" if time else "that of its script",
        "mem": f"--{mem[1]}" if mem else "the partition's default",
    }
