"""Merge a run and write its report."""

from __future__ import annotations

import logging

from hpcjobs.errors import DiskFullError, IncompleteError
from hpcjobs.merge.by_kind import MERGES
from hpcjobs.plugins import contained
from hpcjobs.run_folder.job_kinds import kind_of
from hpcjobs.run_folder.merged import Merged
from hpcjobs.run_folder.metrics_file import MetricsFile
from hpcjobs.run_folder.paths import RunPaths

log = logging.getLogger(__name__)


def merge_and_report(paths: RunPaths) -> Merged:
    """Merge a run and write its report. If only the report fails, that is logged and the results are kept.

    A table that is better than what was merged now stays, with its report (`Merged.kept`).
    """
    kind = kind_of(paths)
    kind.check("merge", paths.root.name)
    with contained():
        merged = MERGES[kind.name](paths)
    if not merged.kept:
        try_report(paths)
    return merged


def try_report(paths: RunPaths) -> None:
    """Write the report, or log why it could not be written."""
    try:
        from hpcjobs.report import write_report

        write_report(paths)
    except DiskFullError as error:
        log.error("report.html was not written; the results are whole: %s", error)
    except Exception:
        log.exception("report.html was not written; the results are whole")


def check_replaced(merged: Merged) -> None:
    """Raise an IncompleteError if the table was kept, as what was merged has fewer samples."""
    if merged.kept:
        raise IncompleteError(merged.kept)


def exit_code(paths: RunPaths) -> int:
    """The exit code of a run that was merged: 0 complete, 3 incomplete, 1 failed."""
    return MetricsFile.read(paths.metrics).verdict.exit_code
