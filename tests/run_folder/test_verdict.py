from __future__ import annotations

import pytest

from hpcjobs.run_folder.metrics_file import Counts, MetricsFile, with_verdict
from hpcjobs.run_folder.run_state import RunState
from hpcjobs.run_folder.verdict import Verdict, judge_answers, judge_steps

MEAN = {"f1": 50}


def counts(rows: int = 50, missing: int = 0, errors: int = 0, metric_errors: int = 0) -> Counts:
    return Counts(rows=rows, accepted=rows - missing, missing=missing, errors=errors, metric_errors=metric_errors)


@pytest.mark.parametrize(
    ("found", "scored", "limit", "state", "code", "words"),
    [
        (counts(), MEAN, 0.1, "complete", 0, ""),
        (counts(), {}, 0, "complete", 0, ""),
        (counts(errors=5), MEAN, 0.1, "complete", 0, ""),
        (counts(errors=6), MEAN, 0.1, "failed", 1, "of 50 samples 6 have no completion; run.max_errors is 0.1"),
        (counts(errors=3, metric_errors=3), MEAN, 0.1, "failed", 1, "3 have no completion and 3 have one"),
        (counts(metric_errors=3), MEAN, 0.1, "incomplete", 3, "3 of 50 samples have no score"),
        (counts(metric_errors=3), MEAN, 2, "failed", 1, "run.max_errors is 2"),
        (counts(errors=3), MEAN, 3, "complete", 0, ""),
        (counts(errors=1), MEAN, 0, "failed", 1, "run.max_errors is 0"),
        (counts(errors=1), MEAN, 0.0, "failed", 1, "run.max_errors is 0.0"),
        (counts(100, errors=29), MEAN, 0.29, "complete", 0, ""),  # 0.29 * 100 is 28.999999999999996
        (counts(errors=50), {"f1": 50}, 1.0, "failed", 1, "50 have no completion"),
        (counts(errors=49), MEAN, 1.0, "complete", 0, ""),
        (counts(), {"f1": 0}, 0.1, "failed", 1, "no sample has a score of f1"),
        (counts(), {"f1": 50, "own": 0}, 0.1, "incomplete", 3, "no sample has a score of own"),
        (counts(0), {}, 0.1, "failed", 1, "there were no rows"),
        (counts(missing=4), {"f1": 46}, 0.1, "incomplete", 3, "4 of 50 samples have no result"),
        (counts(missing=4, errors=6), {"f1": 46}, 0.1, "failed", 1, "6 have no completion"),
        (counts(missing=50), {"f1": 0}, 0.1, "incomplete", 3, "50 of 50 samples have no result"),
    ],
)  # fmt: skip
def test_the_verdict(found: Counts, scored: dict[str, int], limit: float, state: str, code: int, words: str) -> None:
    verdict = judge_answers(found, scored, limit)
    assert (verdict.state, verdict.exit_code) == (state, code)
    assert words in verdict.why
    assert bool(verdict.why) == bool(words)
    assert verdict.remark == ("" if state == "complete" else state.upper())


def test_the_next_command_is_what_mends_it() -> None:
    assert judge_answers(counts(missing=1), MEAN, 0.1).verb == "resume"
    assert judge_answers(counts(errors=9, metric_errors=1), MEAN, 0.1).verb == "resume --errors"
    assert judge_answers(counts(metric_errors=9), MEAN, 0.1).verb == "score"
    assert judge_answers(counts(metric_errors=1), MEAN, 0.1).verb == "score"


def test_a_training_is_complete_or_not() -> None:
    assert judge_steps(True, counts()) == Verdict(RunState.COMPLETE)
    assert judge_steps(False, counts(missing=2)).why == "2 of 50 steps have no record"
    assert judge_steps(False, counts()).why == "model/ is not written"


@pytest.mark.parametrize(("errors", "state"), [(5, "complete"), (6, "failed")])
def test_a_file_of_an_earlier_version_is_judged_by_the_default(errors: int, state: str) -> None:
    values = {
        "complete": True, "metrics": {"f1": {"value": 0.5, "n": 50, "stderr": None, "ci95": None}}, "warnings": [],
        "counts": {"rows": 50, "accepted": 50, "missing": 0, "errors": errors}, "provenance": {"merged_at": 1.0},
    }  # fmt: skip
    assert MetricsFile.of(values).verdict.state == state
    assert with_verdict(values)["state"] == state
    assert MetricsFile.of(values | {"max_errors": 6}).verdict.state == "complete"
