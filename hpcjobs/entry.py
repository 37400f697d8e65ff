"""The post-job step: merge, then report; what the merge job, the local supervisor and `hpcjobs merge` all run."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from hpcjobs.errors import HpcJobsError, IncompleteError, UsageError
from hpcjobs.merge import Merged, merge
from hpcjobs.paths import RunPaths
from hpcjobs.plan import Plan

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


def finish_run(run_dir: str) -> None:
    """The merge job's entry point: ends with hpcjobs' exit code, which Slurm then shows."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        code = exit_code(merge_and_report(RunPaths(Path(run_dir))))
    except HpcJobsError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    if code:
        sys.exit(code)
