"""The table that stands: a merge that has fewer samples than it does not replace it."""

from __future__ import annotations

import contextlib

from hpcjobs.run_folder.ledger.chunks import runs_again
from hpcjobs.run_folder.metrics_file import MetricsFile
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan


def better_standing(paths: RunPaths, plan: Plan, accepted: int, errors: int = 0) -> str:
    """Why the table that stands is kept; '' if what was merged now is no worse, or no whole table stands.

    Where failed samples run again, their errors do not count from then on: then completions are compared.
    """
    answers = plan.kind.unit == "answers"
    if answers and not paths.results.exists():
        return ""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        counts = MetricsFile.read(paths.metrics).counts
        rounds = paths.rounds() if answers else []
        again = bool(rounds) and runs_again(paths.chunks(rounds[-1]))
        now, before = (accepted - errors, counts.accepted - counts.errors) if again else (accepted, counts.accepted)
        if now < before:
            rows = plan.rows if answers else counts.rows  # of a training its steps
            return (
                f"{now} of {rows} are there now, fewer than the {before} of the table that stands, "
                f"which is kept: journals are gone, or other ones count; next: hpcjobs resume {paths.root} runs what "
                f"is missing; to have the smaller table all the same, remove {paths.metrics} first"
            )
    return ""
