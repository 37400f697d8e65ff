"""The status of a run, from its files and the queue. It works without accounting, and shows what is unknown."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hpcjobs.commands.counts import count
from hpcjobs.commands.damage import damage_notes, is_changed, naming
from hpcjobs.commands.first_error import first_error, is_earlier
from hpcjobs.commands.job_notes import job_notes, jobs_of
from hpcjobs.commands.local_supervisor import may_work
from hpcjobs.commands.program import look_at_program, newest_start
from hpcjobs.config.resolve import read_config
from hpcjobs.launch import slurm
from hpcjobs.launch.jobs import known_launches, local_processes
from hpcjobs.run_folder.attempts import FailedAttempt
from hpcjobs.run_folder.copies import Copy, state_of
from hpcjobs.run_folder.disk import shortage
from hpcjobs.run_folder.liveness import LOST, RankView, view_ranks
from hpcjobs.run_folder.metrics_file import MetricsFile
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan
from hpcjobs.run_folder.rank_state import RankState
from hpcjobs.run_folder.run_state import RunState
from hpcjobs.run_folder.submission import Launch, read_launches, together
from hpcjobs.run_folder.verdict import Verdict
from hpcjobs.training.evals import ModelEval, evals_of


@dataclass(frozen=True, kw_only=True)
class Status:
    """The status of a run. `rate` is in samples per second, `eta` in seconds; None if unknown.

    For a train run `rows` and `done` count steps, `rate` is steps per second, `step` is the last step's record, and
    `evals` are the evals of its models. `attempts` are the starts of a program, in its last launch, that have failed,
    `copies` those of an array of programs. `going`: some job or process of the run is alive, even if only the merge
    job, which is still writing the report. `age`: where Slurm does not answer, how old the newest sign of life in the
    files is, in seconds; None if it answers or there is none.
    """

    run: str
    job: str
    folder: str
    state: RunState
    rows: int
    done: int
    rate: float
    eta: float | None
    ranks: list[RankView]
    jobs: dict[str, slurm.JobState]
    first_error: str | None
    notes: list[str]
    metrics: MetricsFile | None
    going: bool = False
    age: float | None = None
    step: dict[str, float] | None = None
    evals: list[ModelEval] = field(default_factory=list)
    attempts: list[FailedAttempt] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether the run has ended, or was only planned."""
        return self.state.over

    def exit_code(self) -> int:
        """0 complete, 3 incomplete, 1 otherwise: the exit code of `--wait`."""
        return Verdict(self.state).exit_code

    def values(self) -> dict[str, Any]:
        """The status as JSON values."""
        values = dataclasses.asdict(dataclasses.replace(self, metrics=None))
        values["metrics"] = self.metrics and self.metrics.values
        values["jobs"] = {kind: dataclasses.asdict(job) for kind, job in self.jobs.items()}
        values["ranks"] = [
            dataclasses.asdict(rank.vitals) | {"state": rank.state, "rate": round(rank.rate, 3)} for rank in self.ranks
        ]
        return values


def read_status(paths: RunPaths) -> Status:
    """The status of a run, now. Slurm is asked once. Raises a DamagedError that names the file that cannot be read."""
    with naming(paths), slurm.one_look():
        return _read(paths)


def _read(paths: RunPaths) -> Status:
    plan, launches = Plan.read(paths.plan), known_launches(paths)
    if is_changed(paths, plan):  # read only for the error that it may be: reading it takes longer than all the rest
        read_config(paths.config)
    now = together(launches)
    jobs, notes = jobs_of(now)
    notes += _cut_short(paths, launches)
    ranks = view_ranks(paths, now, functools.cache(lambda: read_config(paths.config).run.lease_timeout))
    metrics = _fresh_metrics(paths, now[-1] if now else None)
    counts = count(paths, plan, [rank.vitals for rank in ranks if rank.live])
    rows, done = counts.rows, counts.done
    rate = sum(rank.rate for rank in ranks if rank.live) if counts.rate is None else counts.rate
    if metrics and (metrics.complete or not any(rank.live for rank in ranks)):  # else it was a look, and more is done
        rows, done = metrics.counts.rows, metrics.counts.accepted
    eta = (rows - done) / rate if rate and plan.kind.unit != "none" else None
    going = _still_going(now, jobs, ranks, plan.kind.has("merge"), metrics)
    cancelled = any(one.cancelled for one in now) or any(job.cancelled for job in jobs.values())
    program = look_at_program(paths, launches, ranks, going, cancelled) if plan.kind.alone else None
    counted = program.ranks if program else ranks
    state = _state(plan, now, jobs, ranks, metrics, program.copies if program else ())
    complete = state == RunState.COMPLETE
    merged = metrics if complete else None
    error = None if complete and plan.kind.unit != "answers" else first_error(counted, now, merged)
    if state == RunState.FAILED and not error:
        error = shortage(paths)
    unheard = any(job.source == "unreachable" for job in jobs.values())
    age = _age(ranks) if unheard else None
    notes += [_from_files(age)] if unheard else []
    notes += job_notes(jobs, now, paths, state.over, bool(error)) if not complete else []
    notes += [note for one in now for note in one.notes]
    lost = [rank for rank in counted if rank.state in LOST]
    notes += [_loss(rank) for rank in lost if not (complete and is_earlier(rank, now))]
    notes += program.notes() if program else []
    notes += damage_notes(paths, plan) if state.over and metrics is None else []  # what was merged was readable
    notes += counts.warnings if metrics is None else []  # they are among those of the merge
    if metrics and state.over and metrics.verdict.why:
        notes.append(f"{metrics.verdict.why}: {next_command(metrics.verdict, paths)}")
    if state == RunState.INCOMPLETE and plan.kind.alone:
        why = next((rank.vitals.ended for rank in ranks if rank.state == RankState.DRAINED), None)
        notes.append(f"its program was not done{f' ({why})' if why else ''}: next: hpcjobs resume {paths.root}")
    if state == RunState.FAILED and not metrics and plan.kind.has("merge") and _ended(now, ranks):
        notes.append(f"its ranks have ended, and no merge has: next: hpcjobs merge {paths.root}")
    return Status(
        run=plan.run,
        job=plan.job,
        folder=str(paths.root),
        state=state,
        rows=rows,
        done=done,
        rate=rate,
        eta=eta,
        ranks=ranks,
        jobs=jobs,
        first_error=error,
        notes=notes,
        metrics=metrics,
        going=going,
        age=age,
        step=counts.step,
        evals=evals_of(paths),
        attempts=program.attempts if program else [],
        copies=program.copies if program else [],
    )


def _cut_short(paths: RunPaths, launches: Sequence[Launch]) -> list[str]:
    """A message if the newest launch was ended before anything was queued."""
    newest = read_launches(paths)[-1:]
    if not newest or newest[0].number in [one.number for one in launches]:
        return []
    ways = f"hpcjobs resume {paths.root}, or hpcjobs rm {paths.root}"
    return [f"its last launch was cut short before anything was started: next: {ways}"]


def _age(ranks: Sequence[RankView]) -> float | None:
    beats = [rank.vitals.beat_at for rank in ranks]
    return max(time.time() - max(beats), 0.0) if beats else None


def _from_files(age: float | None) -> str:
    """What the files say where Slurm says nothing."""
    said = "no rank has started" if age is None else f"the newest sign of life of a rank is {age:.0f} s old"
    return f"from the files alone: {said}; next: scontrol ping, which says whether slurmctld is up"


def next_command(verdict: Verdict, paths: RunPaths) -> str:
    """The command that mends the run; without one, how to look."""
    verb, _, flags = (verdict.verb or "logs").partition(" ")
    return f"next: hpcjobs {verb} {paths.root}" + (f" {flags}" if flags else "")


def _ended(launches: Sequence[Launch], ranks: Sequence[RankView]) -> bool:
    """Whether these launches had ranks, and none is alive."""
    mine = [rank for rank in ranks if any(launch.owns(rank.vitals.attempt) for launch in launches)]
    return bool(mine) and not any(rank.live for rank in mine)


def _loss(rank: RankView) -> str:
    """A message about a lost rank, with its node and, if known, how it ended."""
    vitals = rank.vitals
    how = f" ({vitals.ended})" if vitals.ended else ""
    if rank.state == RankState.SILENT:
        how = f" (no sign of life for {time.time() - vitals.beat_at:.0f} s: stopped, or its node is gone)"
    return (
        f"rank {vitals.rank} of attempt {vitals.attempt} on {vitals.host} is {rank.state}{how}, "
        f"after at least {vitals.samples} samples"
    )


def _fresh_metrics(paths: RunPaths, launch: Launch | None) -> MetricsFile | None:
    """The content of metrics.json, if it was merged after the last launch."""
    if not paths.metrics.exists():
        return None
    metrics = MetricsFile.read(paths.metrics)
    fresh = launch is None or metrics.provenance.merged_at >= launch.submitted_at
    return metrics if fresh else None


def _state(
    plan: Plan,
    launches: Sequence[Launch],
    jobs: dict[str, slurm.JobState],
    ranks: Sequence[RankView],
    metrics: MetricsFile | None,
    copies: Sequence[Copy] = (),
) -> RunState:
    if metrics and metrics.complete:
        return metrics.verdict.state
    if not launches:
        # ranks, if any, were started by hand
        if any(rank.live for rank in ranks):
            return RunState.RUNNING
        return metrics.verdict.state if metrics else RunState.ENDED if ranks else RunState.PLANNED
    work = [job for kind, job in jobs.items() if kind != "merge"]
    # What was merged so far may be a look, or the merge job may go on by itself.
    if _still_going(launches, jobs, ranks, plan.kind.has("merge"), metrics):
        if work and all(job.pending for job in work):
            return RunState.PENDING
        unknown = any(job.source == "unreachable" for job in work) or any(_unheard(one) for one in launches)
        return RunState.UNKNOWN if unknown and not any(rank.live for rank in ranks) else RunState.RUNNING
    mine = [rank for rank in ranks if any(launch.owns(rank.vitals.attempt) for launch in launches)]
    if metrics:
        return RunState.FAILED if any(rank.vitals.fatal for rank in mine) else metrics.verdict.state
    states = [rank.state for rank in newest_start(mine)] if not plan.kind.has("merge") else []
    whole = len(states) == launches[-1].ranks
    if (state_of(copies) == RunState.COMPLETE) if copies else (whole and set(states) == {RankState.DONE}):
        return RunState.COMPLETE
    local = launches[-1].executor == "local" and plan.kind.has("merge")
    ended = any(one.cancelled for one in launches) or (local and any(rank.state == RankState.DRAINED for rank in mine))
    if ended or any(job.cancelled for job in work):
        return RunState.CANCELLED
    if copies:
        return state_of(copies)
    return RunState.INCOMPLETE if whole and set(states) <= {RankState.DONE, RankState.DRAINED} else RunState.FAILED


def _still_going(
    launches: Sequence[Launch],
    jobs: dict[str, slurm.JobState],
    ranks: Sequence[RankView],
    merges: bool = True,
    metrics: MetricsFile | None = None,
) -> bool:
    """Whether any job or process of these launches is or may be alive, from Slurm or from heartbeats."""
    if not launches:
        return False
    live = any(rank.live for rank in ranks)
    if any(one.starting or _unheard(one) for one in launches):
        return True
    if launches[-1].executor == "slurm":
        if any(not job.over and job.source not in ("none", "unreachable") for job in jobs.values()):
            return True
        known = all(job.source not in ("none", "unreachable") for job in jobs.values())
        return any(job.source == "unreachable" for job in jobs.values()) or (live and not known)
    if launches[-1].executor == "local":
        return live or any(may_work(one, ranks, merges, metrics) or local_processes(one) for one in launches)
    return False


def _unheard(launch: Launch) -> bool:
    """Whether nobody knows if it has jobs: its command has ended before it was told, and Slurm does not answer."""
    return launch.executor == "slurm" and not (launch.launched or launch.jobs or launch.starting)
