"""The merge job: merge and report; also run by the local supervisor."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from pathlib import Path

from hpcjobs.commands.auto_resume import fatal_errors, may_go_on
from hpcjobs.commands.merge import exit_code, merge_and_report
from hpcjobs.config.resolve import read_config
from hpcjobs.errors import HpcJobsError
from hpcjobs.launch.jobs import known_launches
from hpcjobs.run_folder.heartbeat import read_heartbeats
from hpcjobs.run_folder.merged import Merged
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.rank_state import RankState
from hpcjobs.run_folder.submission import read_launches, together
from hpcjobs.worker.guard import guarded, notice

_MERGE_TRIES = 3

log = logging.getLogger(__name__)
# How long files of other nodes may take to become visible (seconds), and after how many merges without progress
# they are considered missing.
_VISIBLE_SECONDS = 60.0
_LOOKS = 3


def finish_run(run_dir: str, launch: int | None = None) -> None:
    """The entry point of the merge job. Exits with hpcjobs' exit code, which Slurm then shows.

    If a later launch than `launch` has its own merge job, this one does nothing.
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
            from hpcjobs.commands.carry_on import carry_on

            carry_on(paths, read_config(paths.config), log.info, automatic=True)
        elif merged.complete and paths.then_eval.exists():
            from hpcjobs.commands.then_eval import start_evals

            start_evals(paths, log.info)
        code = exit_code(paths)
        if code and (fatal := fatal_errors(paths, together(read_launches(paths)))):
            raise HpcJobsError(fatal[0])
    except HpcJobsError as error:
        with contextlib.suppress(OSError):  # its log may be on the disk that is full
            print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    if code:
        sys.exit(code)


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


def guard_merge(run_dir: str, launch: int) -> None:
    """`finish_run(run_dir, launch)` in a child process, repeated if a signal ended it. Exits with its exit code."""
    for left in reversed(range(_MERGE_TRIES)):
        code = guarded(lambda: finish_run(run_dir, launch), lambda code: False)
        if code <= 128 or not left:
            break
        notice(f"the merge was ended by signal {code - 128}: once more")
    if code:
        sys.exit(code)
