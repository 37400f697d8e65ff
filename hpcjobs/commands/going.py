"""Whether a run is over or goes on, for the verbs that start more of it."""

from __future__ import annotations

from hpcjobs.commands.status import Status, read_status
from hpcjobs.errors import UsageError
from hpcjobs.launch import slurm
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.run_state import RunState

# A second job beside one that lives is worse than to wait for a slow controller.
_SECONDS = 60.0


def check_over(paths: RunPaths, run: str) -> None:
    """Raise a UsageError unless nothing of the run will go on by itself."""
    status = _status(paths)
    if status.state == RunState.UNKNOWN:
        raise UsageError(_unknown(run, status))
    if not status.over:
        raise UsageError(
            f"{run} is still going: hpcjobs status {run}; for more ranks: hpcjobs join {run}; to start it anew: "
            f"hpcjobs cancel {run}"
        )


def check_going(paths: RunPaths, run: str) -> None:
    """Raise a UsageError unless ranks can join the run."""
    status = _status(paths)
    if status.state == RunState.UNKNOWN:
        raise UsageError(_unknown(run, status))
    if status.state not in (RunState.PENDING, RunState.RUNNING):
        resume = f"hpcjobs resume {run} takes a shape too"
        then = "nothing is left for more ranks" if status.state == RunState.COMPLETE else resume
        raise UsageError(f"{run} is not going on, it is {status.state}: {then}")


def _status(paths: RunPaths) -> Status:
    with slurm.one_look(_SECONDS):
        return read_status(paths)


def _unknown(run: str, status: Status) -> str:
    why = status.notes[0].partition(":")[0] if status.notes else "Slurm does not answer"
    return (
        f"whether {run} still goes on is not known ({why}), and a second job beside it would be waste: the same "
        "command again, once scontrol ping says that slurmctld is up"
    )
