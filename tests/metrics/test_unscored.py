"""Scores that are no numbers: how many, which samples, and that each mean says so."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa

from hpcjobs.config import TaskConfig
from hpcjobs.metrics import Aggregator, find_metrics
from hpcjobs.metrics.format import score_lines
from hpcjobs.metrics.unscored import Unscored
from hpcjobs.report.scores import score_of

NONE = [0.5, None, 0.25, math.nan, math.inf, None, -math.inf, None, None]
ERROR = {"type": "ValueError", "message": "x"}


def told(names: list[str], scores: dict[str, list[float | None]], statistics: Any = None) -> dict[str, Any]:
    count = len(next(iter(scores.values())))
    columns = {
        "id": pa.array([f"r{n}" for n in range(count)]),
        "scores": pa.StructArray.from_arrays([pa.array(each, pa.float64()) for each in scores.values()], list(scores)),
        "error": pa.array([ERROR if n == 1 else None for n in range(count)]),
    }
    if statistics is not None:
        columns["statistics"] = pa.StructArray.from_arrays([pa.array(statistics, pa.list_(pa.float64()))], names)
    made = Aggregator(find_metrics(names), TaskConfig(metrics=tuple(names)))
    rows = pa.table(columns)
    for start in range(0, count, 4):
        made.add(rows.slice(start, 4))
    return made.told(
        {
            "metrics": made.summary(),
            "warnings": ["f1: 7 samples have a score that is no finite number and are left out of it: 'old'", "kept"],
        }
    )


def test_what_is_no_number_is_counted_and_named_and_in_no_mean() -> None:
    found = told(["f1", "exact_match"], {"f1": NONE, "exact_match": [1.0, None, *[1.0] * 7]})
    assert (found["metrics"]["f1"]["value"], found["metrics"]["f1"]["n"]) == (0.375, 2)
    assert found["metrics"]["f1"]["unscored"] == 6, "the row that ended in an error is another matter"
    assert "unscored" not in found["metrics"]["exact_match"]
    named = "'r3', 'r4', 'r5', 'r6', 'r7', ..."
    said = f"f1: 6 samples have a score that is no finite number and are left out of it: {named}"
    assert found["warnings"] == ["kept", said], "what an earlier scoring said is gone"


def test_every_output_says_so() -> None:
    summaries = told(["f1"], {"f1": NONE})["metrics"]
    [line] = score_lines(summaries)
    assert line.endswith("n=2 (6 no number)")
    assert score_of("f1", summaries["f1"]).unscored == 6
    nothing = told(["f1"], {"f1": [None, None, None]})["metrics"]
    assert list(score_lines(nothing)) == ["f1               -         n=0 (2 no number)"]
    assert score_of("f1", nothing["f1"]).unscored == 2


def test_a_sample_whose_counts_are_in_the_value_is_not_left_out() -> None:
    """A perplexity beyond numbers: its log-likelihood is in the sums."""
    found = told(["perplexity"], {"perplexity": [2.0, None, None, None]}, [[-1.0, 1.0], None, [-9999.0, 1.0], None])
    assert (found["metrics"]["perplexity"]["n"], found["metrics"]["perplexity"]["unscored"]) == (2, 1)


def test_what_the_metric_failed_to_score_has_its_own_error() -> None:
    rows = pa.table({
        "id": ["a", "b", "c", "d"],
        "metric_errors": [[{"metric": "f1"}], [{"metric": "bleu"}], None, [{"metric": "bleu"}, {"metric": "f1"}]],
    })  # fmt: skip
    unscored = Unscored("f1")
    assert unscored.warning() == ""
    unscored.add(rows, np.array([False, False, False, False]))
    assert unscored.count == 0
    unscored.add(rows, np.array([True, True, True, True]))
    assert (unscored.count, unscored.warning().partition(": 'b'")[2]) == (2, ", 'c'")


def test_five_are_named_over_all_batches() -> None:
    unscored = Unscored("f1")
    for names in (["a", "b"], ["c", "d", "e"]):
        unscored.add(pa.table({"id": names}), np.ones(len(names), bool))
    assert unscored.warning().endswith(": 'a', 'b', 'c', 'd', 'e'")
    unscored.add(pa.table({"other": [1]}), np.ones(1, bool))
    assert unscored.warning().startswith("f1: 6 samples have")
    assert unscored.warning().endswith("'e', ...")
