"""Claim the next launch of a run, as a rank claims a chunk: of several commands at the same moment one gets it."""

from __future__ import annotations

import secrets
import sys
from dataclasses import dataclass

from hpcjobs.config.shape import Shape
from hpcjobs.errors import HpcJobsError, UsageError
from hpcjobs.launch.entry import SUPERVISOR
from hpcjobs.run_folder.launch_files import LaunchFiles
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.submission import Launch, read_launches, take_launch, together, write_submission


@dataclass(frozen=True)
class Start:
    """Options of a launch. `merge`: queue a merge job after the ranks. `automatic`: an automatic resume. `joined`: the
    ranks join the current round. `indexes`: the copies to start, of an array of programs.
    """

    merge: bool = True
    automatic: bool = False
    joined: bool = False
    indexes: tuple[int, ...] = ()


class OvertakenError(HpcJobsError):
    """Another command has launched the run, or cancelled it, at the same moment: this one stops."""


def claim(
    paths: RunPaths, executor: str, shape: Shape, start: Start, number: int, round_number: int = 0
) -> Launch | None:
    """Record launch `number`, of which nothing is queued yet; None if another command has taken this number.

    Raises an OvertakenError if what it joins, or goes on from, was cancelled meanwhile.
    """
    if executor == "debug" and shape.ranks > 1:
        raise UsageError(f"--executor debug runs one rank in this process, not {shape.ranks}: use --executor local")
    worker = f"python -m hpcjobs.worker {paths.root}"
    supervisor = f"{sys.executable} -m {SUPERVISOR} {paths.root} {number}"
    command = {"slurm": "sbatch --parsable SCRIPT", "local": supervisor, "debug": worker}[executor]
    record = Launch(
        number=number,
        executor=executor,
        jobs={},
        shape=str(shape),
        ranks=shape.ranks,
        commands=(command,),
        automatic=start.automatic,
        round=round_number,
        joined=start.joined,
        indexes=start.indexes,
        key=secrets.token_hex(8),
    )
    if not take_launch(paths, record):
        return None
    earlier = together([one for one in read_launches(paths) if one.number < number])
    if (start.joined or start.automatic) and any(one.cancelled for one in earlier):
        withdraw(paths, number, "the run was cancelled")
        raise OvertakenError(f"{paths.root.name} was cancelled meanwhile: next: hpcjobs resume {paths.root.name}")
    return record


def overtaken(paths: RunPaths, number: int) -> OvertakenError:
    """The error that says which launch has come first."""
    name, first = paths.root.name, next((one for one in read_launches(paths) if one.number >= number), None)
    by = f", by process {first.by['pid']} on {first.host}" if first and first.by else ""
    return OvertakenError(
        f"{name} is still going: another command has launched it meanwhile{by}, and this one has started nothing; "
        f"next: hpcjobs status {name}"
    )


def withdraw(paths: RunPaths, number: int, why: str) -> None:
    """Let a launch not count. A job of it that appears after all ends at once."""
    LaunchFiles(paths).mark(number, "void", why)
    write_submission(paths)


def check_wanted(paths: RunPaths, number: int) -> None:
    """Raise an OvertakenError if this launch was cancelled, or withdrawn by a later one."""
    if LaunchFiles(paths).marked(number, "cancelled", "void"):
        raise OvertakenError(
            f"{paths.root.name} was cancelled while it was being started: next: hpcjobs resume {paths.root.name}"
        )
