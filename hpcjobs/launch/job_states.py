"""What each of Slurm's job states means for a run.

The states are those of squeue(1), JOB STATE CODES, and the flags that newer versions list beside them
(slurm.schedmd.com/job_state_codes.html).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """What a job in a state does next."""

    WAITING = "waits"  # it will start by itself
    HELD = "is held"  # it starts once somebody releases it
    ALIVE = "lives"  # its ranks run, or have just ended
    OVER = "is over"  # nothing of it will run again


@dataclass(frozen=True)
class Meaning:
    """What a state means. `why` goes on from "job 7 (work)"; `change` is what to do about it, empty if nothing is."""

    phase: Phase
    why: str
    change: str = ""


_RESUME = "next: hpcjobs resume {run}"
STATES = {
    "PENDING": Meaning(Phase.WAITING, "waits in the queue"),
    "REQUEUED": Meaning(Phase.WAITING, "is being requeued"),
    "REQUEUE_FED": Meaning(Phase.WAITING, "is being requeued by a federation"),
    "CONFIGURING": Meaning(Phase.WAITING, "has nodes, which are being made ready"),
    "POWER_UP_NODE": Meaning(Phase.WAITING, "has nodes, which are being powered up"),
    "EXPEDITING": Meaning(Phase.WAITING, "is requeued to start again soon"),
    "REQUEUE_HOLD": Meaning(Phase.HELD, "was requeued and is held", "next: scontrol release {job}"),
    "SPECIAL_EXIT": Meaning(
        Phase.HELD, "ended in a way for which the site requeues and holds jobs", "next: scontrol release {job}"
    ),
    "RESV_DEL_HOLD": Meaning(
        Phase.HELD,
        "is held, as its reservation was deleted",
        "next: hpcjobs cancel {run}, then hpcjobs resume {run} --reservation with another one",
    ),
    "RUNNING": Meaning(Phase.ALIVE, "runs"),
    "COMPLETING": Meaning(Phase.ALIVE, "is just ending"),
    "RESIZING": Meaning(Phase.ALIVE, "is about to change its size"),
    "SIGNALING": Meaning(Phase.ALIVE, "is being sent a signal"),
    "STAGE_OUT": Meaning(Phase.ALIVE, "is copying its files out"),
    "UPDATE_DB": Meaning(Phase.ALIVE, "is being recorded in accounting"),
    "SUSPENDED": Meaning(
        Phase.ALIVE, "is suspended, and its ranks stand still", "Slurm or scontrol resume {job} lets it go on"
    ),
    "STOPPED": Meaning(Phase.ALIVE, "was stopped by a signal", "scancel --signal=CONT {job} lets it go on"),
    "COMPLETED": Meaning(Phase.OVER, "has ended"),
    "CANCELLED": Meaning(Phase.OVER, "was cancelled", _RESUME),
    "FAILED": Meaning(
        Phase.OVER, "ended with an error", "what happened: hpcjobs logs --errors {run}; then hpcjobs resume {run}"
    ),
    "TIMEOUT": Meaning(Phase.OVER, "reached its time limit, {time}", f"{_RESUME}, with a longer --time"),
    "DEADLINE": Meaning(
        Phase.OVER, "could not end before its deadline", f"{_RESUME} --sbatch deadline=TIME with a later one"
    ),
    "OUT_OF_MEMORY": Meaning(
        Phase.OVER, "needed more memory than it had, {mem}", f"{_RESUME} --mem with more, or with more nodes"
    ),
    "NODE_FAIL": Meaning(Phase.OVER, "lost a node", f"{_RESUME}; --sbatch exclude=NODE goes round it"),
    "BOOT_FAIL": Meaning(
        Phase.OVER, "was given nodes that did not boot", f"{_RESUME}; --sbatch exclude=NODE goes round them"
    ),
    "LAUNCH_FAILED": Meaning(
        Phase.OVER, "could not be started on its nodes", f"{_RESUME}; --sbatch exclude=NODE goes round them"
    ),
    "RECONFIG_FAIL": Meaning(
        Phase.OVER, "was given nodes that could not be set up for it", f"{_RESUME}; --sbatch exclude=NODE"
    ),
    "PREEMPTED": Meaning(
        Phase.OVER,
        "had to give its nodes to another job, and is not requeued",
        f"{_RESUME}, with --requeue or another --qos or --partition",
    ),
    "REVOKED": Meaning(
        Phase.OVER, "was taken over by another cluster of the federation", "scancel it there, then hpcjobs resume {run}"
    ),
}  # fmt: skip
# Reasons for which a job that waits will not start by itself (squeue(1), JOB REASON CODES, and
# slurm.schedmd.com/job_reason_codes.html), and what to do.
_REASONS = (
    (r"DependencyNeverSatisfied", "next: hpcjobs cancel {run}, then hpcjobs resume {run}"),
    (r"JobHeldUser|JobHoldMaxRequeue|launch.failed.requeued.held|job.requeued.in.held.state",
     "next: scontrol release {job}"),
    (r"JobHeldAdmin", "an administrator holds it: ask them"),
    (r"PartitionTimeLimit|(QOS|Assoc)MaxWall\w*|QOSTimeLimit|AssociationTimeLimit",
     "hpcjobs cancel {run}, then hpcjobs resume {run} with a shorter --time or another --partition"),
    (r"PartitionNodeLimit|BadConstraints|(QOS|Assoc)(Max|Min)\w+Per(Job|Node)\w*",
     "hpcjobs cancel {run}, then hpcjobs resume {run} with fewer --nodes or --gpus"),
    (r"InvalidAccount|InvalidQOS|(QOS|Account)NotAllowed|PartitionDown|PartitionInactive",
     "hpcjobs cancel {run}, then hpcjobs resume {run} with another --account, --qos or --partition"),
    (r"ReservationDeleted|Reservation.\S+.was.deleted",
     "hpcjobs cancel {run}, then hpcjobs resume {run} with another --reservation"),
)  # fmt: skip


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
    def meaning(self) -> Meaning | None:
        """What its state means; None for one that this version does not know."""
        return STATES.get(self.state.split()[0]) if self.state else None

    @property
    def over(self) -> bool:
        """Whether the job has ended. One in a state that is not known is taken to be alive."""
        return self.meaning is not None and self.meaning.phase == Phase.OVER

    @property
    def cancelled(self) -> bool:
        """Whether the job was cancelled."""
        return self.state.startswith("CANCELLED")

    @property
    def pending(self) -> bool:
        """Whether the job waits in the queue, or is held there."""
        return self.meaning is not None and self.meaning.phase in (Phase.WAITING, Phase.HELD)


def note(job: JobState, kind: str, facts: dict[str, str]) -> str | None:
    """What the user should know of a job: why it died or stands still, and what to change.

    `facts` are the words that a message may have: run, time and mem. None if there is nothing to say.
    """
    if job.source in ("none", "unreachable"):
        return None
    facts = facts | {"job": job.job_id}
    name = f"job {job.job_id} ({kind})"
    if job.meaning is None:
        return f"{name} is in a state that this version of hpcjobs does not know, {job.state}: it is taken to be alive"
    if change := _reason(job):
        return f"{name} will not start by itself ({job.reason}): {change.format(**facts)}"
    if not job.meaning.change or job.state.startswith("CANCELLED"):  # the run's own state says that it was cancelled
        return None
    return f"{name} {_why(job).format(**facts)}: {_change(job, kind).format(**facts)}"


def _reason(job: JobState) -> str | None:
    if not job.pending or (job.meaning and job.meaning.change):  # a state of its own says more than the reason
        return None
    return next((change for reason, change in _REASONS if re.match(reason, job.reason, re.IGNORECASE)), None)


def _why(job: JobState) -> str:
    """The state's words, with what Slurm has told beside it."""
    assert job.meaning is not None
    signal = re.match(r"RaisedSignal:\d+\((\w+)", job.reason)
    code, _, number = job.exit_code.partition(":")
    told = f"signal {signal[1]}" if signal else f"signal {number}" if number not in ("", "0") else ""
    told = told or (f"exit code {code}" if code not in ("", "0") else "")
    told = ", ".join(filter(None, [job.state, told, f"on {job.nodes}" if job.nodes and job.over else ""]))
    return f"{job.meaning.why} ({told})".replace("{nodes}", job.nodes)


def _change(job: JobState, kind: str) -> str:
    assert job.meaning is not None
    return "next: hpcjobs merge {run}" if kind == "merge" and job.over else job.meaning.change
