"""The verdict on a merged run: whether it is a success. Exit codes, status, report and compare all ask it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from hpcjobs.errors import HpcJobsError, IncompleteError
from hpcjobs.run_folder.run_state import RunState

# `run.max_errors` of runs that were planned before there was one.
MAX_ERRORS = 0.1
_CODES = {RunState.COMPLETE: 0, RunState.INCOMPLETE: IncompleteError.exit_code}
_ROUNDING = 1e-9


class Outcome(Protocol):
    """The counts of metrics.json that matter here."""

    @property
    def rows(self) -> int:
        """Samples, or steps, that were planned."""
        ...

    @property
    def missing(self) -> int:
        """Those without a result."""
        ...

    @property
    def errors(self) -> int:
        """Results without a completion."""
        ...

    @property
    def metric_errors(self) -> int:
        """Results without a score of a metric that failed."""
        ...


@dataclass(frozen=True)
class Verdict:
    """`state` is complete, incomplete or failed; `why` says it in words, and `verb` is the next command's ('' if none).
    """

    state: RunState
    why: str = ""
    verb: str = ""

    @property
    def exit_code(self) -> int:
        """0 complete, 3 incomplete, 1 failed."""
        return _CODES.get(self.state, HpcJobsError.exit_code)

    @property
    def remark(self) -> str:
        """What stands beside each score: '' if the run is a success, else its state."""
        return "" if self.state == RunState.COMPLETE else str(self.state).upper()


def judge_answers(counts: Outcome, scored: Mapping[str, int], max_errors: float) -> Verdict:
    """The verdict on an eval or generate run. `scored` has how many samples have a score, by metric.

    `max_errors` is an int (samples) or a float (the share of all rows).

    Failed: there were no rows, all of them failed, more than `max_errors` failed, or a metric has no score at all.
    Incomplete: rows have no result, or no score of some metric.
    """
    failed, verb = counts.errors + counts.metric_errors, "resume --errors" if counts.errors else "score"
    if not counts.rows:
        return Verdict(RunState.FAILED, "there were no rows")
    if failed and (_above(failed, counts.rows, max_errors) or failed == counts.rows):
        return Verdict(RunState.FAILED, _too_many(counts, max_errors), verb)
    if counts.missing:
        why = f"{counts.missing} of {counts.rows} samples have no result"
        return Verdict(RunState.INCOMPLETE, why, "resume")
    unscored = [name for name, count in scored.items() if not count]
    every = len(unscored) == len(scored)
    # A metric of lm_eval (`name,filter`) may be one that its task gives for other documents only.
    if unscored := [name for name in unscored if every or "," not in name]:
        state = RunState.FAILED if every else RunState.INCOMPLETE
        return Verdict(state, f"no sample has a score of {', '.join(unscored)}", "score")
    if counts.metric_errors:
        why = f"{counts.metric_errors} of {counts.rows} samples have no score of a metric that failed"
        return Verdict(RunState.INCOMPLETE, why, "score")
    return Verdict(RunState.COMPLETE)


def judge_steps(complete: bool, counts: Outcome) -> Verdict:
    """The verdict on a training."""
    if complete:
        return Verdict(RunState.COMPLETE)
    what = f"{counts.missing} of {counts.rows} steps have no record" if counts.missing else "model/ is not written"
    return Verdict(RunState.INCOMPLETE, what, "resume")


def _above(failed: int, rows: int, max_errors: float) -> bool:
    """Whether more samples failed than a share of the rows, or a number."""
    most = max_errors if isinstance(max_errors, int) else (max_errors + _ROUNDING) * rows
    return failed > most


def _too_many(counts: Outcome, max_errors: float) -> str:
    parts = ((counts.errors, "have no completion"), (counts.metric_errors, "have one that a metric failed on"))
    what = " and ".join(f"{count} {words}" for count, words in parts if count)
    return f"of {counts.rows} samples {what}; run.max_errors is {max_errors}"
