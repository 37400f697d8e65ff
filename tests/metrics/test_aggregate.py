"""What the aggregator says of metrics beside their values, and what it leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hpcjobs.config import TaskConfig
from hpcjobs.metrics import Aggregator, MeanFold, find_metrics
from hpcjobs.metrics.aggregate import input_column
from hpcjobs.metrics.bootstrap import Floats
from hpcjobs.run_folder.metrics_file import Summary

LISTS = pa.list_(pa.float64())


def table(scores: dict[str, Sequence[float | None]], **columns: pa.Array) -> pa.Table:
    each = [pa.array(one, pa.float64()) for one in scores.values()]
    return pa.table({"scores": pa.StructArray.from_arrays(each, list(scores))} | columns)


def of(name: str, **values: Any) -> Any:
    """A user's metric: a class with a name, and no more than what is given."""
    return type("Own", (), {"name": name} | values)()


def test_where_lower_is_better_it_is_said() -> None:
    """The class may say so, or the name, as of lm-evaluation-harness' ter, whose class here says nothing."""
    metrics = [of("ter"), of("loss", lower_is_better=True), of("accuracy"), *find_metrics(["perplexity", "f1"])]
    made = Aggregator(metrics, TaskConfig())
    made.add(table({metric.name: [1.0, 2.0] for metric in metrics}))
    said = {name: summary.get("lower_is_better") for name, summary in made.summary().items()}
    assert said == {"ter": True, "loss": True, "accuracy": None, "perplexity": True, "f1": None}


def test_the_number_of_a_definition_is_said_where_it_is_given() -> None:
    made = Aggregator([of("a"), of("b")], TaskConfig(), {"b": 3})
    made.add(table({"a": [1.0], "b": [1.0]}))
    assert {name: summary.get("revision") for name, summary in made.summary().items()} == {"a": None, "b": 3}


def test_a_sample_without_a_score_by_a_metric_of_lm_eval_is_no_wonder() -> None:
    """Of a group of tasks each has metrics of its own."""
    metrics = [of("own"), of("theirs", tasks=("lm_eval",))]
    made = Aggregator(metrics, TaskConfig())
    made.add(table({"own": [1.0, None], "theirs": [1.0, None]}, id=pa.array(["a", "b"])))
    assert {name: one.get("unscored") for name, one in made.summary().items()} == {"own": 1, "theirs": None}
    assert made.told({"warnings": []})["warnings"] == [
        "own: 1 samples have a score that is no finite number and are left out of it: 'b'"
    ]


class Kept:
    """A fold that keeps what it is given, has groups within, and says something of its value."""

    def __init__(self) -> None:
        self.scores, self.statistics = list[float](), list[Any]()

    def add(self, scores: Floats, statistics: pa.Array | None = None) -> None:
        self.scores += scores.tolist()
        self.statistics += [None] * len(scores) if statistics is None else statistics.to_pylist()

    def summary(self) -> Summary:
        return {"value": 0.5, "stderr": None, "ci95": None, "n": len(self.scores)}

    def subgroups(self) -> dict[str, Summary]:
        return {"inner": {"value": 0.25, "stderr": None, "ci95": None, "n": 1}}

    def notes(self) -> list[str]:
        return ["kept: its value is one half"]


@pytest.mark.parametrize("skips", [True, False])
def test_what_ended_in_an_error_is_left_out_where_the_metric_says_so(skips: bool) -> None:
    """Earlier versions wrote a score of 0 for it."""
    fold = Kept()
    metric = of("kept", fold=lambda self: fold, skips_errors=skips)
    rows = table(
        {"kept": [0.0, 1.0, 0.5]}, error=pa.array([{"type": "X"}, None, None]),
        statistics=pa.StructArray.from_arrays([pa.array([[1.0], [2.0], [3.0]], LISTS)], ["kept"]),
    )  # fmt: skip
    Aggregator([metric], TaskConfig()).add(rows)
    assert np.array(fold.scores) == pytest.approx([np.nan if skips else 0.0, 1.0, 0.5], nan_ok=True)
    assert fold.statistics == [None if skips else [1.0], [2.0], [3.0]]


def test_statistics_are_those_of_the_metric_or_none() -> None:
    folds = {name: Kept() for name in ("a", "b")}
    metrics = [of(name, fold=lambda self, one=fold: one) for name, fold in folds.items()]
    counts = pa.StructArray.from_arrays([pa.array([[1.0], None], LISTS)], ["b"])
    Aggregator(metrics, TaskConfig()).add(table({"a": [1.0, 2.0], "b": [3.0, 4.0]}, statistics=counts))
    assert {name: (fold.scores, fold.statistics) for name, fold in folds.items()} == {
        "a": ([1.0, 2.0], [None, None]), "b": ([3.0, 4.0], [[1.0], None]),
    }  # fmt: skip


def test_groups_within_a_fold_are_a_column_of_their_own() -> None:
    metrics = [of("kept", fold=lambda self: Kept()), of("mean"), of("more", fold=lambda self: Kept())]
    columns = pa.StructArray.from_arrays([pa.array(["x", "y"])], ["c"])
    made = Aggregator(metrics, TaskConfig(group_by=("c",)))
    made.add(table({metric.name: [1.0, 0.0] for metric in metrics}, input=columns))
    groups = made.groups()
    assert list(groups) == ["c", "group"]
    assert list(groups["c"]) == ["x", "y"]
    assert {name: one["value"] for name, one in groups["group"]["inner"].items()} == {"kept": 0.25, "more": 0.25}
    assert list(Aggregator([of("mean")], TaskConfig()).groups()) == []


def test_a_fold_says_its_notes_once_and_no_longer_than_they_are_true() -> None:
    made = Aggregator([of("kept", fold=lambda self: Kept()), of("mean")], TaskConfig())
    earlier = ["kept: its value is unknown", "mean: its value is unknown", "other: its value is unknown", "kept too"]
    told = made.told({"warnings": earlier, "metrics": {}})
    assert told == {"warnings": ["other: its value is unknown", "kept too", "kept: its value is one half"],
                    "metrics": {}}  # fmt: skip
    assert made.told(told) == told


def test_without_metrics_there_are_no_groups() -> None:
    made = Aggregator([], TaskConfig(group_by=("c",)))
    made.add(pa.table({"input": pa.StructArray.from_arrays([pa.array(["x"])], ["c"])}))
    assert (made.summary(), made.groups(), made.told({"warnings": []})) == ({}, {}, {"warnings": []})


def test_a_mean_of_a_users_class_is_cut_at_its_bounds() -> None:
    scores = [0.9, *[1.0] * 9]
    made = Aggregator([of("share", bounds=(0, 1)), of("number")], TaskConfig())
    made.add(table({"share": scores, "number": scores}))
    ends = {name: one["ci95"] for name, one in made.summary().items()}
    usual = MeanFold()
    usual.add(np.array(scores))
    assert ends["number"] == usual.summary()["ci95"]
    assert ends["number"] is not None
    assert ends["number"][1] > 1
    assert ends["share"] == [ends["number"][0], 1]


def test_a_column_of_the_users_rows_is_one_array() -> None:
    columns = pa.StructArray.from_arrays([pa.array([1, 2]), pa.array(["a", "b"])], ["n", "source_id"])
    rows = pa.concat_tables([pa.table({"input": columns}), pa.table({"input": columns.slice(1)})])
    assert input_column(rows, "n").to_pylist() == [1, 2, 2]
    assert input_column(rows, "id").to_pylist() == ["a", "b", "b"]
