"""The merge job: merge and report; also run by the local supervisor."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from pathlib import Path

from hpcjobs.commands.auto_resume import fatal_errors, goes_on, may_go_on
from hpcjobs.commands.merge import check_replaced, exit_code, merge_and_report
from hpcjobs.commands.seen import Seen
from hpcjobs.config.resolve import read_config
from hpcjobs.distributed.rank import slurm_job
from hpcjobs.errors import HpcJobsError, LaunchError
from hpcjobs.launch import slurm
from hpcjobs.launch.claim import OvertakenError
from hpcjobs.launch.jobs import known_launches
from hpcjobs.run_folder.files import stay_private
from hpcjobs.run_folder.heartbeat import read_heartbeats
from hpcjobs.run_folder.job_kinds import kind_of
from hpcjobs.run_folder.launch_files import begin_job
from hpcjobs.run_folder.merged import Merged
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity
from hpcjobs.run_folder.rank_state import RankState
from hpcjobs.run_folder.submission import Launch, read_launches, together
from hpcjobs.worker.guard import guarded, notice

_MERGE_TRIES = 3

log = logging.getLogger(__name__)
# How long files of other nodes may take to become visible (seconds), and after how many merges without progress
# they are considered missing.
_VISIBLE_SECONDS = 60.0
_LOOKS = 3
# How long Slurm shows a job at least, after it was queued (seconds): MinJobAge's default (slurm.conf(5)).
_SHOWN_SECONDS = 300.0


def finish_run(run_dir: str, launch: int | None = None) -> None:
    """The entry point of the merge job. Exits with hpcjobs' exit code, which Slurm then shows.

    If ranks of another launch work, or wait in the queue, and that has a merge of its own, this one does nothing.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    paths = RunPaths(Path(run_dir))
    seen = Seen.now(paths)
    if launch is not None and (other := judge_after(paths, launch)) is not None:
        how = "has come after" if other > launch else "is still at work"
        log.info("start %d of this run %s: its merge judges", other, how)
        return
    if kind_of(paths).alone:
        if goes_on(paths):
            _go_on(paths, seen)
        return
    try:
        merged = _merge_all_that_shows(paths)
        if not merged.complete and may_go_on(paths):
            _go_on(paths, seen)
        elif merged.complete and paths.then_eval.exists():
            from hpcjobs.commands.then_eval import start_evals

            start_evals(paths, log.info)
        check_replaced(merged)
        code = exit_code(paths)
        if code and (fatal := fatal_errors(paths, together(read_launches(paths)))):
            raise HpcJobsError(fatal[0])
    except HpcJobsError as error:
        with contextlib.suppress(OSError):  # its log may be on the disk that is full
            print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    if code:
        sys.exit(code)


def _go_on(paths: RunPaths, seen: Seen) -> None:
    """Resume the run, unless another command does so at the same moment."""
    from hpcjobs.commands.carry_on import carry_on

    try:
        carry_on(paths, read_config(paths.config), log.info, seen, automatic=True)
    except OvertakenError as error:
        log.info("not resumed: %s", error)


def judge_after(paths: RunPaths, launch: int) -> int | None:
    """The number of another launch that still has ranks, and whose merge comes when they have ended; None if none has.

    The last of the launches whose ranks end judges the run: a merge depends on the jobs that were known when it was
    queued, and others may have joined since.
    """
    others = [one for one in known_launches(paths) if one.number != launch]
    for one in reversed(others):
        if one.supervisor:
            alive = one.number > launch and not Identity(**one.supervisor).is_dead()
        else:
            alive = "merge" in one.jobs and _at_work(one, one.number > launch)
        if alive:
            return one.number
    return None


def _at_work(launch: Launch, later: bool) -> bool:
    """Whether a launch has ranks in the queue and a merge after them.

    If Slurm does not answer, or does not show jobs that were queued just now, a `later` one has.
    """
    try:
        states = slurm.job_states([*launch.work_jobs, launch.jobs["merge"]])
    except LaunchError:
        return later
    if any(state.source == "none" for state in states.values()):
        return later and time.time() - launch.submitted_at < _SHOWN_SECONDS
    live = {job_id for job_id, state in states.items() if not state.over}
    return launch.jobs["merge"] in live and not live.isdisjoint(launch.work_jobs)


def _merge_all_that_shows(paths: RunPaths) -> Merged:
    """Merge; if all ranks are done but samples are missing, wait for files of other nodes to become visible."""
    merged, deadline, waits = merge_and_report(paths), time.monotonic() + _VISIBLE_SECONDS, 0
    while not merged.complete and _all_done(paths) and waits < _LOOKS and time.monotonic() < deadline:
        time.sleep(1.0)
        before, merged = merged.accepted, merge_and_report(paths)
        waits = waits + 1 if merged.accepted == before else 0
    return merged


def _all_done(paths: RunPaths) -> bool:
    last = together(read_launches(paths))
    states = {v.state for v in read_heartbeats(paths.heartbeats) if any(one.owns(v.attempt) for one in last)}
    return states == {RankState.DONE}


def guard_merge(run_dir: str, launch: int, kind: str = "") -> None:
    """`finish_run(run_dir, launch)` in a child process, repeated if a signal ended it. Exits with its exit code.

    `kind` is that of the Slurm job. If that was cancelled before it began, nothing runs.
    """
    stay_private(Path(run_dir))
    if kind and not begin_job(RunPaths(Path(run_dir)), launch, kind, slurm_job()):
        return notice("the launch was cancelled before its merge began")
    for left in reversed(range(_MERGE_TRIES)):
        code = guarded(lambda: finish_run(run_dir, launch), lambda code: False)
        if code <= 128 or not left:
            break
        notice(f"the merge was ended by signal {code - 128}: once more")
    if code:
        sys.exit(code)
    return None
