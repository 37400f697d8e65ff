"""Decide whether an incomplete run is resumed automatically."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from hpcjobs.config.resolve import read_config
from hpcjobs.distributed.drain import ASKS_AGAIN, PREEMPTION, TIME_LIMIT
from hpcjobs.errors import LaunchError
from hpcjobs.launch import slurm
from hpcjobs.launch.jobs import known_launches
from hpcjobs.run_folder.attempts import failed_attempts
from hpcjobs.run_folder.copies import Copy, array_size, view_copies
from hpcjobs.run_folder.heartbeat import Vitals, read_heartbeats
from hpcjobs.run_folder.job_kinds import kind_of
from hpcjobs.run_folder.ledger.chunks import read_sizes
from hpcjobs.run_folder.liveness import view_ranks
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan
from hpcjobs.run_folder.rank_state import RankState
from hpcjobs.run_folder.run_state import RunState
from hpcjobs.run_folder.submission import Launch, together

log = logging.getLogger(__name__)
# The share of its samples that a start must have finished for its timeout not to count.
_FAIR_SHARE = 0.05


def may_go_on(paths: RunPaths) -> bool:
    """Whether an incomplete run is to be resumed automatically.

    Not if `run.auto_resume` starts are used up, if the last start finished no sample (the next would not either, unless
    a rank of it was killed: that is tried once more), if its ranks met an error that would happen again (such as a full
    disk), or if its job was cancelled. A start that ran out of time after a fair share of its work does not count, so a
    job may chain itself as often as its time limit requires.
    """
    launches, tries = known_launches(paths), read_config(paths.config).run.auto_resume
    starts = [one for one in launches if not one.joined]
    if not starts or not tries or starts[-1].executor == "debug":
        return False
    last = together(launches)
    if fatal_errors(paths, last) or any(one.cancelled for one in last) or _any_job(last, lambda job: job.cancelled):
        return False
    saved = kind_of(paths).saves and any(_ran_out_of_time(paths, one) for one in last)
    if not (saved or _has_worked(paths, last) or (not starts[-1].automatic and _was_killed(paths, last))):
        return False
    spent = [one for one in starts[-tries:] if one.automatic and not _ran_out_of_time(paths, one)]
    return len(spent) < tries


def goes_on(paths: RunPaths) -> bool:
    """Whether a program is to be started again by itself: all its ranks have ended, none badly, and some before they
    were done; or its job was out of time, or preempted, before they had. Of an array, whether a copy is.

    Starts that ended after a warning are as many as it takes. Of the others at most `run.auto_resume` come in a row; 0
    is none of either.
    """
    launches, tries = known_launches(paths), read_config(paths.config).run.auto_resume
    last, vitals = launches[-1:], read_heartbeats(paths.heartbeats)
    if not tries or not last or last[0].executor == "debug" or last[0].cancelled:
        return False
    if _any_job(last, lambda job: job.cancelled):
        return False
    mine = [v for v in vitals if last[0].owns(v.attempt)]
    newest = [v for v in mine if v.attempt == max(mine, key=lambda one: one.started_at).attempt]
    states = {v.state for v in newest}
    if last[0].indexes:
        undone = any(one.state not in (RunState.COMPLETE, RunState.FAILED) for one in _copies(paths))
        return undone and _has_tries(launches, vitals, tries)
    in_order = len(newest) == last[0].ranks and states <= {RankState.DONE, RankState.DRAINED}
    cut_off = bool(newest) and _any_job(last, lambda job: job.state.startswith(("TIMEOUT", "PREEMPTED")))
    if not (in_order or cut_off) or states == {RankState.DONE}:
        return False
    return _has_tries(launches, vitals, tries)


def _copies(paths: RunPaths) -> list[Copy]:
    """The copies of an array of programs whose jobs have ended."""
    launches = known_launches(paths)
    ranks = view_ranks(paths, together(launches), lambda: 0.0)
    return view_copies(ranks, array_size(Plan.read(paths.plan), launches) or 0, failed_attempts(paths))


def _has_tries(launches: Sequence[Launch], vitals: Sequence[Vitals], tries: int) -> bool:
    warned = [any(_was_warned(v.ended or "") for v in vitals if one.owns(v.attempt)) for one in launches[-tries:]]
    spent = [one for one, was in zip(launches[-tries:], warned, strict=True) if one.automatic and not was]
    return len(spent) < tries


def _was_warned(end: str) -> bool:
    return end.startswith("drained") and ASKS_AGAIN not in end


def fatal_errors(paths: RunPaths, launches: Sequence[Launch]) -> list[str]:
    """The errors of ranks of these launches that would happen again."""
    vitals = read_heartbeats(paths.heartbeats)
    mine = [v for v in vitals if v.fatal and any(one.owns(v.attempt) for one in launches)]
    return [f"rank {v.rank} on {v.host}: {v.first_error}" for v in mine]


def _ran_out_of_time(paths: RunPaths, launch: Launch) -> bool:
    """Whether a launch was drained at the time limit or by preemption, after a fair share of its work."""
    vitals = [v for v in read_heartbeats(paths.heartbeats) if launch.owns(v.attempt)]
    in_time = any(v.state == RankState.DRAINED and (v.ended or "").endswith((TIME_LIMIT, PREEMPTION)) for v in vitals)
    kind = kind_of(paths)
    if kind.saves:
        return in_time
    if kind.unit == "steps":  # what it has done is in a checkpoint, be it little
        return in_time and any(v.samples for v in vitals)
    sizes = read_sizes(paths.chunks(launch.round))
    return in_time and sum(v.samples for v in vitals) >= _FAIR_SHARE * sum(sizes)


def _has_worked(paths: RunPaths, launches: Sequence[Launch]) -> bool:
    """Whether a rank of these launches has finished a sample, or a step."""
    journals = [(path.stem.rpartition("-")[0], path) for path in paths.journals()]
    return any(one.owns(attempt) and path.stat().st_size for one in launches for attempt, path in journals)


def _was_killed(paths: RunPaths, launches: Sequence[Launch]) -> bool:
    """Whether a rank of these launches was killed, or lost with its node; not for lack of memory, nor after an error.
    """
    mine = [v for v in read_heartbeats(paths.heartbeats) if any(one.owns(v.attempt) for one in launches)]
    told = [v for v in mine if (v.first_error or "").startswith("LostRankError")]
    if any(v.state == RankState.FAILED and v not in told for v in mine):
        return False
    return (bool(told) or any(v.signal == "SIGKILL" for v in mine)) and not _any_job(
        launches, lambda job: job.state.startswith("OUT_OF_ME")
    )


def _any_job(launches: Sequence[Launch], test: Callable[[slurm.JobState], bool]) -> bool:
    """Whether a rank job of these launches passes `test`; not where Slurm does not answer."""
    work = [job_id for one in launches if one.executor == "slurm" for job_id in one.work_jobs]
    try:
        return any(test(state) for state in slurm.job_states(work).values()) if work else False
    except LaunchError as error:
        log.warning("%s: how the job has ended is not known", error)
        return False
