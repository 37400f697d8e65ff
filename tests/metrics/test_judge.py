"""The judge: what it cleans, what it refuses, and what failed samples score."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hpcjobs.config import TaskConfig
from hpcjobs.errors import ConfigError
from hpcjobs.metrics import Judge, Metric, Score, metric_errors, metrics_of
from hpcjobs.requests import Completion, MetricError, Row, SampleError, Target


def judged(answer: str, target: Target, *more: str, **task: Any) -> dict[str, float]:
    completion = Completion(index=0, text=answer, finish_reason="stop", texts=(answer, *more) if more else ())
    scores = Judge(TaskConfig.model_validate(task)).judge(completion, target, {})
    return {name: score.value for name, score in scores.items()}


def test_extract_comes_before_all_metrics_and_normalize_before_those_that_compare_texts() -> None:
    metrics = ("exact_match", "contains", "f1", "json_valid", "bleu", "answered")
    found = judged("I say <a>The Cat!</a>", "cat", extract="<a>(.*)</a>", normalize=("lower",), metrics=metrics)
    assert (found["exact_match"], found["contains"], found["f1"], found["answered"]) == (0, 1, 1, 1)
    every = ("lower", "punctuation", "articles", "whitespace")
    assert judged("The  Cat!", ["a cat"], normalize=every, metrics=("exact_match",)) == {"exact_match": 1}
    assert judged("The  Cat!", ["a cat"], metrics=("exact_match",)) == {"exact_match": 0}
    # bleu sees the text as it is: normalised, both would be the same
    found = judged("The Cat!", "the cat", normalize=("lower", "punctuation"), metrics=("exact_match", "bleu"))
    assert found["exact_match"] == 1
    assert found["bleu"] < 50


def test_numbers_are_normalised_in_answer_and_target() -> None:
    assert judged("1,000.0", 1000, normalize=("numbers",), metrics=("exact_match",)) == {"exact_match": 1}
    assert judged("35", "3.5", normalize=("numbers", "punctuation"), metrics=("exact_match",)) == {"exact_match": 0}


def test_without_a_match_the_answer_is_empty_and_answered_says_so() -> None:
    task = {"extract": r"#### (\d+)", "metrics": ("exact_match", "number_match", "answered")}
    assert judged("it is 5", "5", **task) == {"exact_match": 0, "number_match": 0, "answered": 0}
    assert judged("#### 5", "5", **task) == {"exact_match": 1, "number_match": 1, "answered": 1}
    assert metrics_of(TaskConfig(extract="x", metrics=("f1",))) == ("f1", "answered")
    assert metrics_of(TaskConfig(extract="x", metrics=("answered", "f1"))) == ("answered", "f1")
    assert metrics_of(TaskConfig(metrics=("f1",))) == ("f1",)
    assert metrics_of(TaskConfig(extract="x")) == ()


def test_each_of_several_answers_is_cleaned() -> None:
    metrics = ("pass@1", "majority", "exact_match")
    task = {"extract": "[A-D]", "normalize": ("lower",), "repeats": 3, "metrics": metrics}
    assert judged("A?", "b", "It is B", "b or B", **task) == pytest.approx(
        {"pass@1": 2 / 3, "majority": 1, "exact_match": 2 / 3}
    )


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"type": "choice", "metrics": ("f1",)}, ["'f1' does not score tasks of type choice", "acc, acc_norm"]),
        ({"type": "perplexity", "metrics": ("acc",)}, ["'acc' does not score tasks of type perplexity", "perplexity,"]),
        ({"metrics": ("exact_match", "acc")}, ["'acc' does not score tasks of type generate", "exact_match, contains"]),
        ({"type": "choice", "metrics": ("pass@1",)}, ["'pass@1' does not score tasks of type choice"]),
        ({"metrics": ("pass@5",), "repeats": 4}, ["'pass@5' needs 5 answers a prompt", "task.repeats (now 4)"]),
        ({"metrics": ("majority",)}, ["'majority' needs several answers", "task.repeats (now 1)"]),
        ({"type": "choice", "metrics": ("acc",), "extract": "x"}, ["task.extract", "task.type is choice"]),
        ({"type": "perplexity", "metrics": ("perplexity",), "normalize": ("lower",)}, ["task.normalize", "perplexity"]),
        ({"metrics": ("f1", "bleu"), "normalize": ("lower",)}, ["task.normalize is set", "f1, bleu", "exact_match"]),
    ],
)  # fmt: skip
def test_what_cannot_score_the_task_is_refused(task: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        Judge(TaskConfig.model_validate(task))
    assert [word for word in words if word not in str(error.value)] == []


def test_what_can_is_not() -> None:
    for task in (
        {"metrics": ("pass@4(number_match)", "majority"), "repeats": 4},
        {"metrics": ("majority",), "repeats": 2},
        {"normalize": ("lower",)},
        {"metrics": ("f1", "exact_match"), "normalize": ("lower",)},
        {"type": "choice", "metrics": ("acc", "acc_norm", "acc_bytes")},
        {"type": "perplexity", "metrics": ("perplexity", "bits_per_byte")},
    ):
        Judge(TaskConfig.model_validate(task))


def test_failed_samples_score_the_worst_there_is() -> None:
    def broken() -> Target:
        raise KeyError("column")

    judge = Judge(TaskConfig(metrics=("exact_match", "bleu")))
    assert judge.failed() == judge.failed(broken) == {"exact_match": Score(0.0), "bleu": Score(0.0)}
    assert judge.failed(lambda: "a b")["bleu"].statistics == (0, 2, *[0] * 8)
    assert Judge(TaskConfig(type="perplexity", metrics=("perplexity",))).failed()["perplexity"].number is None


def test_a_target_that_could_not_be_made_leaves_no_score_and_its_error() -> None:
    found = Judge(TaskConfig(metrics=("exact_match", "f1"))).undecided(KeyError("column"))
    assert list(found) == ["exact_match", "f1"]
    for score in found.values():
        assert (score.number, score.statistics) == (None, None)
        assert math.isnan(score.value)
        assert score.error == SampleError("KeyError", "'column'")
    assert metric_errors({"f1": found["f1"], "bleu": Score(1.0)}) == [MetricError("f1", "KeyError", "'column'")]


def test_a_metric_that_raises_costs_its_own_score_alone() -> None:
    judge = Judge(TaskConfig(metrics=("exact_match", "f1")))
    judge.metrics.append(Broken())  # type: ignore[arg-type]
    found = judge.judge(Completion(index=0, text="a", finish_reason="stop"), "a", {})
    assert (found["exact_match"], found["f1"]) == (Score(1.0), Score(1.0))
    assert found["broken"].error == SampleError("ZeroDivisionError", "no")
    assert judge.names == ["exact_match", "f1", "broken"]


class Broken:
    """A user's, which cannot score."""

    name = "broken"

    def score(self, completion: str, target: Target, row: Row) -> float:
        raise ZeroDivisionError("no")


def test_what_a_base_metric_has_not_is_told() -> None:
    class Empty(Metric):
        name = "empty"

    with pytest.raises(NotImplementedError, match="empty has no score of a text alone"):
        Empty().score("a", "b", {})
    assert (Empty().vote(" a "), Empty().vote(" "), Empty().refuse("x"), Empty.revision) == ("a", None, "", 1)
    assert Empty().fold().summary()["n"] == 0
