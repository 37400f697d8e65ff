"""What a run is doing, from its files and the queue; works without accounting, and says what it cannot know."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hpcjobs import slurm
from hpcjobs.chunks import ChunkList
from hpcjobs.claims import Claims
from hpcjobs.errors import LaunchError
from hpcjobs.files import read_json
from hpcjobs.heartbeat import Vitals, read_heartbeats
from hpcjobs.identity import Identity
from hpcjobs.paths import RunPaths
from hpcjobs.plan import Plan
from hpcjobs.resolve import read_config
from hpcjobs.submission import Launch, read_launches

_STARTING_SECONDS = 30.0
_NOT_LIVE = ("done", "failed", "dead", "silent", "over")


@dataclass(frozen=True)
class RankState:
    """A rank as seen from here: its own words, and whether it is believed to live."""

    vitals: Vitals
    state: str
    rate: float

    @property
    def live(self) -> bool:
        return self.state not in _NOT_LIVE


@dataclass(frozen=True)
class Status:
    """One look at a run; `rate` in samples a second, `eta` in seconds, None where not known.

    `going`: jobs or processes of it live, be it that the merge job writes the report of a complete run.
    """

    run: str
    job: str
    folder: str
    state: str
    rows: int
    done: int
    rate: float
    eta: float | None
    ranks: list[RankState]
    jobs: dict[str, slurm.JobState]
    first_error: str | None
    notes: list[str]
    metrics: dict[str, Any] | None
    going: bool = False

    @property
    def over(self) -> bool:
        return self.state in ("complete", "incomplete", "failed", "planned", "ended", "cancelled")

    def exit_code(self) -> int:
        """0 done, 3 incomplete, 1 failed; what `--wait` ends with."""
        return {"complete": 0, "incomplete": 3}.get(self.state, 1)

    def values(self) -> dict[str, Any]:
        """The status as JSON values."""
        values = dataclasses.asdict(self)
        values["jobs"] = {kind: dataclasses.asdict(job) for kind, job in self.jobs.items()}
        values["ranks"] = [
            dataclasses.asdict(rank.vitals) | {"state": rank.state, "rate": round(rank.rate, 3)} for rank in self.ranks
        ]
        return values


def read_status(paths: RunPaths) -> Status:
    """Look at a run once."""
    plan, config, launches = Plan.read(paths.plan), read_config(paths.config), read_launches(paths)
    launch = launches[-1] if launches else None
    jobs, notes = _jobs(launch)
    ranks = [_rank_state(vitals, launch, config.run.lease_timeout) for vitals in read_heartbeats(paths.heartbeats)]
    metrics = _fresh_metrics(paths, launch)
    done = _done(paths, plan, ranks) if plan.job != "script" else 0
    if metrics:
        done = metrics["counts"]["accepted"]
    rate = sum(rank.rate for rank in ranks if rank.live)
    eta = (plan.rows - done) / rate if rate and plan.job != "script" else None
    state = _state(plan, launch, jobs, ranks, metrics)
    errors = [f"rank {r.vitals.rank} on {r.vitals.host}: {r.vitals.first_error}" for r in ranks if r.vitals.first_error]
    lost = [
        f"rank {r.vitals.rank} of attempt {r.vitals.attempt} on {r.vitals.host} is {r.state}, "
        f"after at least {r.vitals.samples} samples"
        for r in ranks
        if r.state in ("dead", "silent")
    ]
    return Status(
        plan.run, plan.job, str(paths.root), state, plan.rows, done, rate, eta, ranks, jobs,
        errors[0] if errors else None, notes + lost, metrics, launch is not None and _still_going(launch, jobs),
    )  # fmt: skip


def _jobs(launch: Launch | None) -> tuple[dict[str, slurm.JobState], list[str]]:
    if launch is None or launch.executor != "slurm":
        return {}, []
    try:
        states = slurm.job_states(list(launch.jobs.values()))
    except LaunchError as error:
        unknown = {kind: slurm.JobState(job_id, "UNKNOWN", source="none") for kind, job_id in launch.jobs.items()}
        return unknown, [f"{error}: the state of the jobs is not known"]
    jobs = {kind: states[job_id] for kind, job_id in launch.jobs.items()}
    notes = [
        f"job {job.job_id} ({kind}) is known neither to squeue nor to sacct"
        for kind, job in jobs.items()
        if job.source == "none"
    ]
    return jobs, notes


def _rank_state(vitals: Vitals, launch: Launch | None, timeout: float) -> RankState:
    state = vitals.state
    if state not in ("done", "failed"):
        if Identity(**vitals.identity).is_dead():
            state = "dead"
        elif launch and not launch.owns(vitals.attempt):
            state = "over"
        elif time.time() - vitals.beat_at > timeout:
            state = "silent"
    end = time.time() if state not in _NOT_LIVE else vitals.ended_at or vitals.beat_at
    rate = vitals.samples / max(end - vitals.ready_at, 1e-3) if vitals.ready_at and vitals.samples else 0.0
    return RankState(vitals, state, rate)


def _fresh_metrics(paths: RunPaths, launch: Launch | None) -> dict[str, Any] | None:
    """The merge's word, if it was spoken after the last start."""
    if not paths.metrics.exists():
        return None
    metrics: dict[str, Any] = read_json(paths.metrics)
    fresh = launch is None or metrics["provenance"]["merged_at"] >= launch.submitted_at
    return metrics if fresh else None


def _done(paths: RunPaths, plan: Plan, ranks: Sequence[RankState]) -> int:
    """Samples with a result: settled chunks, and what live ranks have finished of open ones."""
    number = paths.rounds()[-1]
    sizes = ChunkList.read(paths.chunks(number)).sizes()
    settled = sum(sizes[chunk] for chunk in Claims(paths.round(number)).list().done)
    return plan.rows - sum(sizes) + settled + sum(rank.vitals.open for rank in ranks if rank.live)


def _state(
    plan: Plan,
    launch: Launch | None,
    jobs: dict[str, slurm.JobState],
    ranks: Sequence[RankState],
    metrics: dict[str, Any] | None,
) -> str:
    if metrics and metrics["complete"]:
        return "complete"
    if launch is None:
        # ranks, if any, were started by hand
        live = any(rank.live for rank in ranks)
        return "running" if live else "incomplete" if metrics else "ended" if ranks else "planned"
    if _still_going(launch, jobs):  # what was merged so far may be a look, or the merge job may go on by itself
        work = jobs.get("work")
        return "pending" if work and work.pending else "running"
    if metrics:
        return "incomplete"
    if plan.job == "script":
        mine = [rank for rank in ranks if launch.owns(rank.vitals.attempt)]
        finished = [rank for rank in mine if rank.state == "done"]
        return "complete" if len(finished) == launch.ranks else "failed"
    work = jobs.get("work")
    return "cancelled" if work and work.state.startswith("CANCELLED") else "failed"


def _still_going(launch: Launch, jobs: dict[str, slurm.JobState]) -> bool:
    if launch.executor == "slurm":
        return any(not job.over and job.source != "none" for job in jobs.values())
    if launch.executor == "local":
        if not launch.supervisor:  # a submit that was killed between its two records has started nothing
            return time.time() - launch.submitted_at < _STARTING_SECONDS
        return not Identity(**launch.supervisor).is_dead()
    return False
