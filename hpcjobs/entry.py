"""The post-job step: merge, then report; what the merge job, the local supervisor and `hpcjobs merge` all run."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from hpcjobs import slurm
from hpcjobs.errors import HpcJobsError, IncompleteError, UsageError
from hpcjobs.merge import Merged, merge
from hpcjobs.paths import RunPaths
from hpcjobs.plan import Plan
from hpcjobs.resolve import read_config
from hpcjobs.submission import read_launches

log = logging.getLogger(__name__)


def merge_and_report(paths: RunPaths) -> Merged:
    """Merge a run and write its report. A report that fails is said; it never costs the results."""
    if Plan.read(paths.plan).job == "script":
        raise UsageError(f"{paths.root.name} is a script run: it has no samples to merge; see hpcjobs status and logs")
    merged = merge(paths)
    try_report(paths)
    return merged


def try_report(paths: RunPaths) -> None:
    """Write the report, or say why it was not written."""
    try:
        from hpcjobs.report import write_report

        write_report(paths)
    except Exception:
        log.exception("report.html was not written; the results are whole")


def exit_code(merged: Merged) -> int:
    """0 complete, 3 finished but incomplete."""
    return 0 if merged.complete else IncompleteError.exit_code


def may_go_on(paths: RunPaths) -> bool:
    """Whether an incomplete run is to be started again by itself.

    Not when `run.auto_resume` starts have been spent, when the last one has finished no sample at all (the
    next one would not either), or when its job was cancelled: somebody wanted it to end.
    """
    launches, tries = read_launches(paths), read_config(paths.config).run.auto_resume
    if (
        not launches
        or not tries
        or all(launch.automatic for launch in launches[-tries:])
        or launches[-1].executor == "debug"
    ):
        return False
    last = launches[-1]
    if not any(last.owns(path.stem.rpartition("-")[0]) and path.stat().st_size for path in paths.journals()):
        return False
    work = last.jobs.get("work")
    return work is None or not slurm.job_states([work])[work].state.startswith("CANCELLED")


def finish_run(run_dir: str) -> None:
    """The merge job's entry point: ends with hpcjobs' exit code, which Slurm then shows."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    paths = RunPaths(Path(run_dir))
    try:
        merged = merge_and_report(paths)
        if not merged.complete and may_go_on(paths):
            from hpcjobs.submit import carry_on

            carry_on(paths, read_config(paths.config), log.info, automatic=True)
        code = exit_code(merged)
    except HpcJobsError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    if code:
        sys.exit(code)
