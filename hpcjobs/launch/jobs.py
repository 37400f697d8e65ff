"""The jobs of a run, including jobs whose ids were never recorded."""

from __future__ import annotations

import contextlib

from hpcjobs.errors import LaunchError
from hpcjobs.launch import slurm
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.submission import Launch, read_launches


def known_launches(paths: RunPaths) -> list[Launch]:
    """`read_launches`, with the ids of jobs whose submission was interrupted: they are found in the queue by their
    keys.

    Jobs stay unknown if Slurm does not answer.
    """
    launches = read_launches(paths)
    lost = {key: (n, kind) for n, one in enumerate(launches) for kind, key in one.keys.items() if kind not in one.jobs}
    with contextlib.suppress(LaunchError):
        for key, job_id in slurm.find_submitted(list(lost)).items() if lost else ():
            number, kind = lost[key]
            launches[number] = launches[number].with_job(kind, job_id)
    return launches
