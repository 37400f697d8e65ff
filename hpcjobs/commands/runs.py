"""Look at many runs: Slurm is asked once for all of them, and one that cannot be read costs no other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hpcjobs.commands.damage import naming
from hpcjobs.commands.job_notes import job_ids
from hpcjobs.commands.status import Status, read_status
from hpcjobs.errors import HpcJobsError
from hpcjobs.launch import slurm
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.submission import read_launches, together


def look_at(runs: Sequence[RunPaths]) -> Iterator[tuple[RunPaths, Status | HpcJobsError]]:
    """Each run with its status, or with the error that says what of it cannot be read."""
    expected = [job_id for paths in runs for job_id in _jobs(paths)]
    with slurm.one_look(expected=expected):
        found = [(paths, _status(paths)) for paths in runs]
    yield from found


def _status(paths: RunPaths) -> Status | HpcJobsError:
    try:
        return read_status(paths)
    except HpcJobsError as error:
        return error


def _jobs(paths: RunPaths) -> list[str]:
    """The jobs that will be asked for; none of a run that cannot be read, which its status tells."""
    try:
        with naming(paths):
            return list(job_ids(together(read_launches(paths))).values())
    except HpcJobsError:
        return []
