"""Where a call runs: the id of its job, and the variables that submitit.JobEnvironment reads."""

from __future__ import annotations

from hpcjobs.distributed.rank import slurm_job
from hpcjobs.errors import HpcJobsError
from hpcjobs.run_folder.calls import Calls
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.submission import read_launches


def job_of(paths: RunPaths, calls: Calls) -> str:
    """The id of the job, which stays that of the first launch: Slurm's, or the run's own.

    Raises an HpcJobsError if Slurm runs this and the first launch has no job.
    """
    if calls.facts.job_id:
        return calls.facts.job_id
    first = next(iter(read_launches(paths)), None)
    if first and (jobs := first.work_jobs):
        return jobs[0]
    if job := slurm_job():
        return job
    raise HpcJobsError(f"{paths.root} was launched by Slurm, and no job of it is recorded")


def call_env(paths: RunPaths, job_id: str, launcher: str) -> dict[str, str]:
    """What tells a function which call it is. In Slurm its number is that of the element of an array, as in submitit.
    """
    base, _, number = job_id.partition("_")
    env = {"SUBMITIT_FOLDER": str(paths.jobs), "SUBMITIT_EXECUTOR": "slurm" if launcher == "slurm" else "local"}
    if launcher != "slurm":
        return env | {"SUBMITIT_LOCAL_JOB_ID": job_id}
    if base != slurm_job() or number:
        env |= {"SLURM_ARRAY_JOB_ID": base, "SLURM_ARRAY_TASK_ID": number} if number else {"SLURM_JOB_ID": base}
    return env


def alone_env(launcher: str) -> dict[str, str]:
    """What tells a call of one task that it is alone, whatever shares the work of its rank."""
    if launcher == "slurm":
        return {}
    names = {"NTASKS": "1", "GLOBALID": "0", "LOCALID": "0", "NODEID": "0", "JOB_NUM_NODES": "1"}
    return {f"SUBMITIT_LOCAL_{name}": value for name, value in names.items()}
