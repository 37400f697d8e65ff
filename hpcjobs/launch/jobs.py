"""The jobs and processes of a run, including jobs whose ids were never recorded."""

from __future__ import annotations

from hpcjobs.errors import LaunchError
from hpcjobs.launch import slurm
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity, processes_with
from hpcjobs.run_folder.submission import Launch, read_launches

# In the environment of a local launch's processes: the key of the launch.
LAUNCH_KEY = "HPCJOBS_LAUNCH"


def known_launches(paths: RunPaths) -> list[Launch]:
    """`read_launches`, with the ids of jobs whose submission was interrupted (`find_jobs`).

    Launches that were cut short before anything was queued or started are left out. Jobs stay unknown if Slurm does not
    answer.
    """
    launches = read_launches(paths)
    try:
        return [one for one in find_jobs(launches) if not _cut_short(one)]
    except LaunchError:
        return launches


def cut_short(paths: RunPaths) -> list[Launch]:
    """The launches of which nothing was queued or started, as their command was ended before. Raises a LaunchError if
    Slurm does not answer.
    """
    return [one for one in find_jobs(read_launches(paths)) if _cut_short(one)]


def find_jobs(launches: list[Launch]) -> list[Launch]:
    """The launches, with the ids of jobs that were not recorded: they are found in the queue by their keys.

    Raises a LaunchError if Slurm does not answer.
    """
    lost = {key: (n, kind) for n, one in enumerate(launches) for kind, key in one.keys.items() if kind in one.unseen}
    found = list(launches)
    for key, job_id in slurm.find_submitted(list(lost)).items() if lost else ():
        place, kind = lost[key]
        found[place] = found[place].with_job(kind, job_id)
    return found


def _cut_short(launch: Launch) -> bool:
    return not (launch.launched or launch.jobs or launch.supervisor or launch.starting)


def local_processes(launch: Launch) -> list[Identity]:
    """The living processes of a local launch: those that have its key, whoever started them, and its supervisor."""
    found = processes_with(LAUNCH_KEY, launch.key) if launch.key else []
    if launch.supervisor and (supervisor := Identity(**launch.supervisor)) not in found:
        found += [] if supervisor.machine != Identity.own().machine or supervisor.is_dead() else [supervisor]
    return found
