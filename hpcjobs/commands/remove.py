"""rm: remove a run of which nothing lives."""

from __future__ import annotations

from pathlib import Path

from hpcjobs.commands.damage import DamagedError, naming
from hpcjobs.commands.seen import Seen
from hpcjobs.commands.status import read_status
from hpcjobs.errors import UsageError
from hpcjobs.launch.claim import Start, withdraw
from hpcjobs.run_folder.paths import RunPaths, find_run, runs_root
from hpcjobs.run_folder.plan import Plan
from hpcjobs.run_folder.removal import is_unfinished, remove_folder


def remove(name: str) -> Path:
    """Remove the run with this name or folder; returns the folder. Raises a UsageError if it is not over."""
    for folder in (Path(name), runs_root() / name):
        if is_unfinished(folder):
            remove_folder(folder.resolve())
            return folder.resolve()
    paths = find_run(name)
    _remove_run(paths)
    return paths.root


def _remove_run(paths: RunPaths) -> None:
    """Claim the next launch, so that no resume begins meanwhile, and remove the folder."""
    try:
        with naming(paths):
            seen, status = Seen.now(paths), read_status(paths)
    except DamagedError as error:
        raise UsageError(
            f"{error}: so what of the run still lives is not known; next: end its jobs, which squeue --me lists, then "
            f"rm -r {paths.root}"
        ) from error
    if not status.over or status.going:
        raise UsageError(
            f"{status.run} is still going ({status.state}): next: hpcjobs cancel {paths.root}, then hpcjobs rm "
            f"{paths.root}"
        )
    record = seen.claim(paths, "local", Plan.read(paths.plan).shape, Start())
    withdraw(paths, record.number, "hpcjobs rm")
    remove_folder(paths.root)
