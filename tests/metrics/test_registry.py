"""Metrics that compare an answer with a target, by hand; how metrics are found."""

from __future__ import annotations

import math
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from hpcjobs import plugins
from hpcjobs.config import TaskConfig
from hpcjobs.errors import ConfigError
from hpcjobs.metrics import BUILT_IN, Judge, Score, find_metric, find_metrics, golds
from hpcjobs.metrics.base import bounds_of, failed_score, leaves_errors_out
from hpcjobs.metrics.registry import _are_bounds, lower_is_better, metrics_of, registered_names
from hpcjobs.metrics.revisions import revisions
from hpcjobs.requests import Completion, Target


def score(name: str, completion: str, target: Target) -> float:
    return find_metric(name).score(completion, target, {})


@pytest.mark.parametrize(
    ("completion", "target", "value"),
    [
        ("Paris", "Paris", 1), (" Paris\n", "Paris", 1), ("paris", "Paris", 0), ("Paris.", "Paris", 0),
        ("Lyon", ["Paris", " Lyon "], 1), ("", "", 1), ("", [], 0), ("x", None, 0),
    ],
)  # fmt: skip
def test_exact_match(completion: str, target: Target, value: float) -> None:
    assert score("exact_match", completion, target) == value


@pytest.mark.parametrize(
    ("completion", "target", "value"),
    [
        ("It is PARIS, I think", "Paris", 1), ("It is Lyon", "Paris", 0), ("straße", "STRASSE", 1),
        ("anything", "", 0), ("anything", "  ", 0), ("b", ["a", "b"], 1), ("", "a", 0), ("x", None, 0),
    ],
)  # fmt: skip
def test_contains(completion: str, target: Target, value: float) -> None:
    assert score("contains", completion, target) == value


@pytest.mark.parametrize(
    ("completion", "target", "value"),
    [
        # SQuAD's rules: articles, case, ASCII punctuation and white space do not count; overlap is of bags of words.
        ("The Denver Broncos!", "Denver Broncos", 1),
        ("Denver", "Denver Broncos", 2 / 3),
        ("Santa Clara, California", ["Levi's Stadium", "Santa Clara"], 0.8),
        ("gold gold", "gold", 2 / 3),
        ("an answer the", "answer", 1),
        ("Levis", "Levi's", 1),
        ("theatre", "the atre", 0),
        ("Saint Bernadette Soubirous", "Bernadette", 0.5),
        ("no", "yes", 0),
        ("", "", 1),
        ("the", "", 1),  # nothing is left of it
        ("word", "", 0),
        ("", "word", 0),
        ("x", [], 0),
        ("x", None, 0),
        ("3.5", "35", 1),  # as in SQuAD's script: punctuation goes without a blank
    ],
)
def test_f1(completion: str, target: Target, value: float) -> None:
    assert score("f1", completion, target) == pytest.approx(value)


@pytest.mark.parametrize(
    ("completion", "target", "value"),
    [
        ("She makes 9 * 2 = $<<9*2=18>>18 every day.\n#### 18", "... #### 18", 1),
        ("The answer is 18.", "Janet sells 16 - 3 - 4 = 9.\n#### 18", 1),
        ("The answer is 19.", "#### 18", 0),
        ("1,234", "1234", 1), ("$1,234.50", "1234.5", 1), ("7", "7.0", 1), ("-3", "#### -3", 1), ("3", "-3", 0),
        ("#### -$5", "-5", 1), ("-$5", "-5", 1), ("$-5", "-5", 1), ("#### $-5", "-5", 1),
        ("50%", "50", 1), ("0.5", ".5", 1), ("#### .5", "0.5", 1),
        ("#### 18\nBut 20 is wrong", "18", 1), ("#### 1\n#### 2", "1", 1), ("#### none, so 4", "4", 1),
        ("between 3-5", "5", 1), ("3 to 5.", "5", 1), ("It costs 5, then.", "5", 1),
        ("no number", "5", 0), ("", "5", 0), ("5", "no number", 0), ("no number", "none", 0),
        ("4", ["3", "4"], 1), ("4", None, 0), ("10000000000000000000001", "10000000000000000000000", 0),
        ("#### 2,125.", "2125", 1), ("**42**", "42", 1), ("x = 42\n", "42", 1), ("1.000", "1", 1),
        ("#### 1,", "1", 1), ("####18", "18", 1),
    ],
)  # fmt: skip
def test_number_match(completion: str, target: Target, value: float) -> None:
    assert score("number_match", completion, target) == value


def test_golds() -> None:
    assert golds(None) == []
    assert golds("ab") == ["ab"]
    assert golds(["a", "b"]) == ["a", "b"]


def test_every_metric_is_found_by_its_name() -> None:
    assert [metric.name for metric in find_metrics(BUILT_IN)] == list(BUILT_IN)
    assert set(BUILT_IN) >= {"exact_match", "contains", "f1", "number_match"}


# What each metric scores, and `target` if it needs one, `normal` if task.normalize goes before it, `right` if it says
# right or wrong, `lower` if less is better, and its bounds.
WORDS = {
    "exact_match": "generate target normal right", "contains": "generate target normal right",
    "f1": "generate target 0 1", "number_match": "generate target right", "bleu": "generate target",
    "chrf": "generate target", "rouge1": "generate target 0 1", "rouge2": "generate target 0 1",
    "rougeL": "generate target 0 1", "rougeLsum": "generate target 0 1", "json_valid": "generate right",
    "answered": "generate right", "acc": "choice target normal right", "acc_norm": "choice target normal right",
    "acc_bytes": "choice target normal right", "perplexity": "perplexity normal lower",
    "word_perplexity": "perplexity normal lower", "byte_perplexity": "perplexity normal lower",
    "bits_per_byte": "perplexity normal lower", "pass@2": "generate target normal 0 1",
    "pass@2(json_valid)": "generate 0 1", "pass@2(number_match)": "generate target 0 1",
    "majority": "generate target normal", "majority(f1)": "generate target", "majority(answered)": "generate",
    "bleu(tokenize=zh)": "generate target",
}  # fmt: skip


@pytest.mark.parametrize(("name", "words"), WORDS.items())
def test_what_a_metric_says_of_itself(name: str, words: str) -> None:
    metric = find_metric(name)
    said = {"target": metric.needs_target, "normal": metric.normalized, "right": metric.binary,
            "lower": metric.lower_is_better, "0 1": metric.bounds == (0.0, 1.0)}  # fmt: skip
    assert " ".join([*metric.tasks, *(word for word, there in said.items() if there)]) == words
    assert metric.bounds in (None, (0.0, 1.0))
    assert metric.skips_errors is False


def test_every_metric_is_in_that_table() -> None:
    assert {*BUILT_IN} <= {*WORDS}


def test_what_is_new_of_a_definition_is_new_inside_others_too() -> None:
    names = ["exact_match", "number_match", "pass@1(number_match)", "majority(number_match)", "majority"]
    assert revisions(TaskConfig(), find_metrics(names)) == dict.fromkeys(names[1:4], 2)


def test_no_metric_twice_and_none_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="two metrics are called 'f1'"):
        find_metrics(["f1", "f1"])
    with pytest.raises(ConfigError, match=r"no metric 'exact_mach' \(did you mean 'exact_match'\?\); there are .*f1"):
        find_metric("exact_mach")


OWN = """
from hpcjobs.metrics import Metric

class Length(Metric):
    name = "length"
    needs_target = False
    def score(self, completion, target, row):
        return len(completion) + row["bonus"]

class Plain:
    def score(self, completion, target, row):
        return True

class Odds(Plain):
    bounds = (1, 0)

class Shares(Plain):
    bounds = (0, 1)

class NoScore:
    name = "none"

class Breaks:
    def __init__(self):
        raise RuntimeError("no license")
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's in the working folder, under a name of its own."""
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_an_own_class(own: str) -> None:
    metrics = find_metrics([f"{own}:Length", f"{own}:Plain", "exact_match"])
    assert [metric.name for metric in metrics] == ["length", "Plain", "exact_match"]
    judge = Judge(TaskConfig(metrics=(f"{own}:Length", f"{own}:Plain", "exact_match")))
    assert judge.judge(Completion(index=0, text="abc", finish_reason="stop"), "abc", {"bonus": 2}) == {
        "length": Score(5.0),
        "Plain": Score(1.0),
        "exact_match": Score(1.0),
    }


def test_the_bounds_of_an_own_class(own: str) -> None:
    assert bounds_of(find_metric(f"{own}:Shares")) == (0, 1)
    assert bounds_of(find_metric(f"{own}:Plain")) is None
    assert bounds_of(find_metric("exact_match")) == (0.0, 1.0)


@pytest.fixture
def installed(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that registers four of these classes as metrics."""
    kinds = {"chars": "Length", "ter": "Plain", "broken": "Breaks", "none": "NoScore"}
    points = {name: EntryPoint(name, f"{own}:{kind}", plugins.METRICS) for name, kind in kinds.items()}
    monkeypatch.setattr(plugins, "registered", lambda group: points)


@pytest.mark.usefixtures("installed")
def test_a_metric_of_an_installed_package_has_the_name_that_it_is_registered_as() -> None:
    found = find_metrics(["chars", "pass@2(chars)"])
    assert [metric.name for metric in found] == ["chars", "pass@2(chars)"]
    assert found[0].score("abc", None, {"bonus": 2}) == 5
    names = ["chars", "lines", "f1", "pass@2(chars)", "majority", "pass@2", "os:Own", "bleu(tokenize=zh)"]
    assert registered_names(names) == ["chars", "chars"]
    with pytest.raises(ConfigError, match="'broken' cannot be used: RuntimeError: no license"):
        find_metric("broken")
    with pytest.raises(ConfigError, match="'none' has no method score"):
        find_metric("none")
    with pytest.raises(ConfigError, match=r"no metric 'char' \(did you mean 'chars'\?\)"):
        find_metric("char")
    assert not lower_is_better("ter"), "it says so itself; lm-evaluation-harness's of that name is another"


@pytest.mark.parametrize(
    ("name", "lower"),
    [
        ("exact_match", False), ("perplexity", True), ("bits_per_byte", True), ("ter", True), ("ter,none", True),
        ("brier_score", True), ("acc,none", False), ("word_perplexity,none", True), ("majority(f1)", False),
        ("majority(perplexity)", True), ("pass@2(perplexity)", False), ("pass@2", False), ("bleu(tokenize=zh)", False),
        ("os:Own", False),
    ],
)  # fmt: skip
def test_where_lower_values_are_better(name: str, lower: bool) -> None:
    assert lower_is_better(name) is lower


@pytest.mark.parametrize(
    ("bounds", "right"),
    [
        (None, True), ((0, 1), True), ([0, 1.5], True), ((0, 0), False), ((0, 1, 2), False), ((0,), False),
        ("01", False), ((0, "1"), False), (("0", 1), False), (3, False),
    ],
)  # fmt: skip
def test_bounds_are_a_pair_of_a_less_and_a_greater_number(bounds: object, right: bool) -> None:
    assert _are_bounds(bounds) is right


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("no_such_module_at_all:X", ["ModuleNotFoundError", "no_such_module_at_all"]),
        ("{own}:Missing", ["AttributeError", "Missing"]),
        ("{own}:NoScore", ["no method score"]),
        ("{own}:Breaks", ["RuntimeError: no license"]),
        ("{own}:Odds", ["its bounds (1, 0) are no pair of numbers such as (0, 1)"]),
        (":X", ["cannot be used"]),
        ("os:", ["cannot be used"]),
    ],
)
def test_an_own_class_that_cannot_be_used(own: str, path: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        find_metric(path.format(own=own))
    for word in ["task.metrics", *words]:
        assert word in str(error.value)


def test_what_numbers_are_normalized_to_is_part_of_the_definition_of_what_compares_literally() -> None:
    own: list[Any] = [a_class(name="own"), a_class(name="raw", normalized=False), a_class(name="new", revision=3)]
    metrics = [*find_metrics(["exact_match", "f1", "bleu"]), *own]
    numbers = revisions(TaskConfig(normalize=("numbers",)), metrics)
    plain = revisions(TaskConfig(normalize=("lower",)), metrics)
    changed = {name: number for name, number in numbers.items() if plain.get(name) != number}
    assert changed == {"exact_match": 2, "own": 2}
    assert revisions(TaskConfig(), own) == {"new": 3}


def test_how_often_a_pattern_matched_is_added_once_where_there_are_metrics() -> None:
    answered = {(): (), ("f1",): ("f1", "answered"), ("answered", "f1"): ("answered", "f1")}
    for names, found in answered.items():
        assert metrics_of(TaskConfig(metrics=names, extract="(.*)")) == found
        assert metrics_of(TaskConfig(metrics=names)) == names


def test_an_unknown_metric_is_told_those_for_its_type_of_task() -> None:
    with pytest.raises(ConfigError, match=r"no metric 'foo'; there are acc, acc_norm, acc_bytes, and your own as"):
        find_metrics(["foo"], "choice")
    with pytest.raises(ConfigError, match=r"no metric 'foo'; there are exact_match.*majority, and your") as told:
        find_metrics(["foo"], "generate")
    assert "acc_norm" not in str(told.value)


class Plain:
    """A user's class with nothing but a score."""

    def score(self, completion: str, target: Target, row: object) -> float:
        return 0.0


def a_class(**values: object) -> object:
    return type("Own", (Plain,), values)()


@pytest.mark.parametrize(
    ("metric", "bounds", "worst"),
    [
        (a_class(), None, 0.0), (a_class(binary=True), (0, 1), 0.0), (a_class(bounds=(2, 5)), (2, 5), 0.0),
        (a_class(lower_is_better=True), None, math.nan), (a_class(lower_is_better=True, bounds=(2, 5)), (2, 5), 5.0),
        (a_class(lower_is_better=True, binary=True), (0, 1), 1.0),
    ],
)  # fmt: skip
def test_an_error_has_the_worst_score_or_none_where_there_is_no_worst(metric: Any, bounds: Any, worst: float) -> None:
    assert bounds_of(metric) == bounds
    assert failed_score(metric, None).value == pytest.approx(worst, nan_ok=True)
    assert leaves_errors_out(metric) == math.isnan(worst)
