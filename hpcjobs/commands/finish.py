"""The post-job step: merge, then report; what the merge job, the local supervisor and `hpcjobs merge` all run."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hpcjobs.config.resolve import read_config
from hpcjobs.distributed.drain import PREEMPTION, TIME_LIMIT
from hpcjobs.errors import DiskFullError, HpcJobsError, IncompleteError, LaunchError, UsageError
from hpcjobs.launch import slurm
from hpcjobs.merge.eval import Merged, merge
from hpcjobs.merge.train import merge_train
from hpcjobs.plan.draft import Plan
from hpcjobs.run_folder.heartbeat import read_heartbeats
from hpcjobs.run_folder.ledger.chunks import read_sizes
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.submission import Launch, known_launches, read_launches, together

log = logging.getLogger(__name__)
# The share of its samples by which a start that ran out of time has made headway.
_FAIR_SHARE = 0.05
# How long files of other nodes may take to show here, and looks in vain after which they are taken for missing.
_VISIBLE_SECONDS = 60.0
_LOOKS = 3


def merge_and_report(paths: RunPaths) -> Merged:
    """Merge a run and write its report. A report that fails is said; it never costs the results."""
    job = Plan.read(paths.plan).job
    if job == "script":
        raise UsageError(f"{paths.root.name} is a script run: it has no samples to merge; see hpcjobs status and logs")
    merged = merge_train(paths) if job == "train" else merge(paths)
    try_report(paths)
    return merged


def try_report(paths: RunPaths) -> None:
    """Write the report, or say why it was not written."""
    try:
        from hpcjobs.report import write_report

        write_report(paths)
    except DiskFullError as error:
        log.error("report.html was not written; the results are whole: %s", error)
    except Exception:
        log.exception("report.html was not written; the results are whole")


def exit_code(merged: Merged) -> int:
    """0 complete, 3 finished but incomplete."""
    return 0 if merged.complete else IncompleteError.exit_code


def may_go_on(paths: RunPaths) -> bool:
    """Whether an incomplete run is to be started again by itself.

    Not when `run.auto_resume` starts have been spent, when the last one has finished no sample at all (the
    next one would not either), when its ranks met what the next start would meet again (a full disk), or when its
    job was cancelled: somebody wanted it to end. A start that ran out of time after a fair share of the rest is no
    try: a job chains itself as often as its time limit makes it.
    """
    launches, tries = known_launches(paths), read_config(paths.config).run.auto_resume
    starts = [one for one in launches if not one.joined]
    if not starts or not tries or starts[-1].executor == "debug":
        return False
    last = together(launches)
    if not any(
        one.owns(path.stem.rpartition("-")[0]) and path.stat().st_size for one in last for path in paths.journals()
    ):
        return False
    if fatal_errors(paths, last) or _cancelled(last):
        return False
    spent = [one for one in starts[-tries:] if one.automatic and not _ran_out_of_time(paths, one)]
    return len(spent) < tries


def fatal_errors(paths: RunPaths, launches: Sequence[Launch]) -> list[str]:
    """What ended ranks of these starts and would end the next ones too."""
    vitals = read_heartbeats(paths.heartbeats)
    mine = [v for v in vitals if v.fatal and any(one.owns(v.attempt) for one in launches)]
    return [f"rank {v.rank} on {v.host}: {v.first_error}" for v in mine]


def _ran_out_of_time(paths: RunPaths, launch: Launch) -> bool:
    """Whether a start was drained by Slurm's own plan after it had done a fair share of what it was to run."""
    vitals = [v for v in read_heartbeats(paths.heartbeats) if launch.owns(v.attempt)]
    in_time = any(v.state == "drained" and (v.ended or "").endswith((TIME_LIMIT, PREEMPTION)) for v in vitals)
    if Plan.read(paths.plan).job == "train":  # what it has done is in a checkpoint, be it little
        return in_time and any(v.samples for v in vitals)
    sizes = read_sizes(paths.chunks(launch.round))
    return in_time and sum(v.samples for v in vitals) >= _FAIR_SHARE * sum(sizes)


def _cancelled(launches: Sequence[Launch]) -> bool:
    work = [job_id for one in launches if one.executor == "slurm" for job_id in one.work_jobs]
    try:
        return any(state.cancelled for state in slurm.job_states(work).values()) if work else False
    except LaunchError as error:
        log.warning("%s: whether the job was cancelled is not known", error)
        return False


def finish_run(run_dir: str, launch: int | None = None) -> None:
    """The merge job's entry point: ends with hpcjobs' exit code, which Slurm then shows.

    Where a later start than `launch` has a merge job of its own, that one judges.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    paths = RunPaths(Path(run_dir))
    later = [one for one in known_launches(paths) if launch is not None and one.number > launch]
    if any("merge" in one.jobs or one.supervisor for one in later):
        log.info("start %d of this run has come after: its merge judges", later[-1].number)
        return
    try:
        merged = _merge_all_that_shows(paths)
        if not merged.complete and may_go_on(paths):
            from hpcjobs.commands.submit import carry_on

            carry_on(paths, read_config(paths.config), log.info, automatic=True)
        elif merged.complete and paths.then_eval.exists():
            from hpcjobs.commands.then_eval import start_evals

            start_evals(paths, log.info)
        code = exit_code(merged)
        if code and (fatal := fatal_errors(paths, together(read_launches(paths)))):
            raise HpcJobsError(fatal[0])
    except HpcJobsError as error:
        with contextlib.suppress(OSError):  # its log may be on the disk that is full
            print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    if code:
        sys.exit(code)


def _merge_all_that_shows(paths: RunPaths) -> Merged:
    """Merge; where all ranks say that they have done all and samples are missing, we may only see them late."""
    merged, deadline, waits = merge_and_report(paths), time.monotonic() + _VISIBLE_SECONDS, 0
    while not merged.complete and _all_done(paths) and waits < _LOOKS and time.monotonic() < deadline:
        time.sleep(1.0)
        before, merged = merged.accepted, merge_and_report(paths)
        waits = waits + 1 if merged.accepted == before else 0
    return merged


def _all_done(paths: RunPaths) -> bool:
    last = together(read_launches(paths))
    states = {v.state for v in read_heartbeats(paths.heartbeats) if any(one.owns(v.attempt) for one in last)}
    return states == {"done"}
