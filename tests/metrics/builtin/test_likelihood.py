"""Accuracy and perplexity against lm-evaluation-harness' own functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hpcjobs.metrics import Score, find_metric
from hpcjobs.metrics.builtin.options import letter
from hpcjobs.requests import Completion, Target
from tests.reference.differences import Doc, scored


def run_value(name: str, samples: Sequence[tuple[Completion, Target]]) -> dict[str, Any]:
    metric = find_metric(name)
    scores = [metric.judge(answer, target, {}) for answer, target in samples]
    fold = metric.fold()
    values = np.array([score.value for score in scores])
    fold.add(values, pa.array([score.statistics for score in scores], metric.statistics))
    return dict(fold.summary())


CASES: list[tuple[list[float], list[str], int | list[int]]] = [
    ([-4.0, -3.0, -9.0], ["ab", "a", "abcdefgh"], 2),
    ([-4.0, -3.0, -9.0], ["ab", "a", "abcdefgh"], 1),
    ([-4.0, -3.0, -9.0], ["ab", "a", "abcdefgh"], [0, 2]),
    ([-5.0, -5.0], ["xx", "yy"], 1),
    ([-5.0, -5.0], ["xx", "yy"], 0),
    ([-6.0, -4.0], ["ééé", "abc"], 0),
    ([-6.0, -5.0], ["ééé", "abc"], 0),
    ([-1.0, -1.1, -1.2, -1.3], ["A", "B", "C", "D"], 0),
]


def test_accuracy_is_that_of_lm_evals_process_results() -> None:
    from lm_eval.api.task import ConfigurableTask

    for logprobs, options, right in CASES:
        pairs = [(logprob, False) for logprob in logprobs]
        theirs = ConfigurableTask.process_results(Doc(options, right), {}, pairs)
        answer = scored(logprobs, options)
        assert {n: find_metric(n).judge(answer, right, {}).value for n in ("acc", "acc_norm", "acc_bytes")} == theirs
    assert len({find_metric(n).judge(scored(*CASES[0][:2]), 2, {}).value for n in ("acc", "acc_norm")}) == 2


def test_accuracy_by_the_letter_of_the_right_option() -> None:
    samples = [(scored([-1.0, -2.0, -3.0], "xyz"), right) for right in (0, 0, 1, 2, 2, 2)]
    found = run_value("acc", samples)
    assert (found["value"], found["n"]) == (pytest.approx(2 / 6), 6)
    assert found["by_option"] == {
        "A": {"value": 1.0, "n": 2}, "B": {"value": 0.0, "n": 1}, "C": {"value": 0.0, "n": 3},
    }  # fmt: skip
    assert [letter(place) for place in (0, 25, 26)] == ["A", "Z", "27"]


def test_a_failed_choice_counts_zero_under_its_letter() -> None:
    metric = find_metric("acc")
    assert metric.failed(2).statistics == (2.0,)
    assert metric.failed([3, 1]).statistics == (3.0,)
    assert metric.judge(scored([-1.0, -2.0, -3.0], "xyz"), [2, 0], {}) == Score(1.0, (2.0,)), "the first that is right"
    fold = metric.fold()
    fold.add(np.zeros(2), pa.array([metric.failed(2).statistics, metric.failed(None).statistics], metric.statistics))
    summary: dict[str, Any] = dict(fold.summary())
    assert (summary["value"], summary["n"], summary["by_option"]) == (0.0, 2, {"C": {"value": 0.0, "n": 1}})


@pytest.mark.parametrize("target", [3, -1, [0, 7], [], None, "A"])
def test_a_target_that_is_no_option_is_an_error(target: Target) -> None:
    with pytest.raises(ValueError, match="not among the 3 options"):
        find_metric("acc").judge(scored([-1.0, -2.0, -3.0], "xyz"), target, {})


def test_an_empty_option_is_never_the_likeliest_by_length() -> None:
    assert find_metric("acc_norm").judge(scored([0.0, -9.0], ["", "x"]), 1, {}).value == 1
    assert find_metric("acc_bytes").judge(scored([0.0, -9.0], ["", "x"]), 1, {}).value == 1
    assert find_metric("acc").judge(scored([-math.inf, -9.0], ["", "x"]), 1, {}).value == 1


TEXTS = ["One two  three\nfour.", "é", "A longer text, of several words and some – bytes.", " leading and trailing "]
LOGPROBS, TOKENS = [-12.5, -3.25, -41.0, -8.125], [5, 2, 14, 4]


def test_perplexity_is_as_lm_evals_aggregations_have_it() -> None:
    import re

    from lm_eval.api.metrics import bits_per_byte, weighted_perplexity

    samples = [(scored([ll], tokens=n), text) for ll, n, text in zip(LOGPROBS, TOKENS, TEXTS, strict=True)]
    words = [(ll, len(re.split(r"\s+", text))) for ll, text in zip(LOGPROBS, TEXTS, strict=True)]
    sizes = [(ll, len(text.encode("utf-8"))) for ll, text in zip(LOGPROBS, TEXTS, strict=True)]
    tokens = list(zip(LOGPROBS, TOKENS, strict=True))
    expected = {
        "perplexity": weighted_perplexity(tokens), "word_perplexity": weighted_perplexity(words),
        "byte_perplexity": weighted_perplexity(sizes), "bits_per_byte": bits_per_byte(sizes),
    }  # fmt: skip
    found = {name: run_value(name, samples) for name in expected}
    assert {name: one["value"] for name, one in found.items()} == pytest.approx(expected, rel=1e-14)
    assert all(one["n"] == 4 and one["bootstrap_ci95"][0] < one["value"] for one in found.values())
    lone = run_value("word_perplexity", samples[:1])
    assert lone["value"] == pytest.approx(weighted_perplexity(words[:1]))
    assert (lone["stderr"], lone["n"]) == (None, 1)


def test_lm_evals_word_and_byte_counts() -> None:
    from lm_eval.api.task import PerplexityTask

    answer = scored([-1.0])
    for text in TEXTS:
        words, size = (
            find_metric(name).judge(answer, text, {}).statistics for name in ("word_perplexity", "byte_perplexity")
        )
        assert words == (-1.0, PerplexityTask.count_words(text))
        assert size == (-1.0, PerplexityTask.count_bytes(text))


def test_a_text_without_likelihood_counts_nowhere() -> None:
    metric = find_metric("perplexity")
    failed = metric.failed("text")
    assert (failed.number, failed.statistics) == (None, None)
    fold = metric.fold()
    sums = pa.array([failed.statistics, (-2.0, 1.0), (-1000.0, 1.0)], metric.statistics)
    fold.add(np.array([math.nan, math.e**2, math.nan]), sums)
    assert fold.summary()["n"] == 2
    assert metric.judge(scored([-1000.0]), "x", {}).number is None, "beyond numbers"
    with pytest.raises(ValueError, match="no log-likelihood"):
        metric.judge(Completion(index=0, text="", finish_reason="stop"), "text", {})
    assert metric.judge(scored([0.0], tokens=0), "", {}).number is None


def test_only_one_text_with_a_likelihood_has_a_perplexity() -> None:
    for answer, target in ((scored([-1.0]), None), (scored([-1.0, -2.0], "ab"), "text")):
        with pytest.raises(ValueError, match="no log-likelihood of one text"):
            find_metric("bits_per_byte").judge(answer, target, {})
    with pytest.raises(ValueError, match="no log-likelihoods of options"):
        find_metric("acc").judge(Completion(index=0, text="", finish_reason="stop"), 0, {})
    perplexity: Any = find_metric("perplexity")
    assert perplexity.units(Completion(index=0, text="", finish_reason="stop"), "x") == 0
    assert find_metric("bits_per_byte").judge(scored([0.0]), "", {}).number is None


def test_bits_per_byte_are_never_below_0_and_have_no_upper_bound() -> None:
    found = run_value("bits_per_byte", [(scored([-0.001]), "abcd"), (scored([-900.0]), "abcd")])
    assert found["ci95"][0] == 0
    assert found["ci95"][1] == pytest.approx(found["value"] + 1.96 * found["stderr"])
    assert run_value("bits_per_byte", [(scored([-1.0]), "abcd")])["value"] == pytest.approx(1 / 4 / math.log(2))


def test_options_are_counted_over_batches_up_to_a_thousand() -> None:
    fold = find_metric("acc").fold()
    for right, scores in (([], []), ([2.0], [1.0]), ([None, 0.0], [0.0, 1.0]), ([999.0, 1000.0, -1.0], [0.0, 1.0, 1.0]),
                          ([2.0, 2.0], [0.0, math.nan]), ([], [])):  # fmt: skip
        lists = pa.array([None if one is None else [one] for one in right], pa.list_(pa.float64()))
        fold.add(np.array(scores, np.float64), lists)
    fold.add(np.array([1.0]))
    summary: dict[str, Any] = dict(fold.summary())
    assert summary["by_option"] == {
        "A": {"value": 1.0, "n": 1}, "C": {"value": 0.5, "n": 2}, "1000": {"value": 0.0, "n": 1},
    }  # fmt: skip
    assert summary["n"] == 8
