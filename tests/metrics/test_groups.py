"""Groups by a column, and the board that folds them beside the whole."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hpcjobs.config import TaskConfig
from hpcjobs.errors import ConfigError
from hpcjobs.metrics import Aggregator, MeanFold, check_groups, find_metrics
from hpcjobs.metrics.clusters import ClusteredFold
from hpcjobs.metrics.groups import MOST_GROUPS, ScoredBatch

ROWS = 3000


def table() -> pa.Table:
    """Scores of a mean and of a corpus metric, and columns of several types."""
    draw = np.random.default_rng(2)
    right = pa.array((draw.random(ROWS) < 0.4).astype(float))
    counts = draw.integers(8, 12, (ROWS, 10)).astype(float).tolist()
    sums = pa.array([None if number % 50 == 0 else row for number, row in enumerate(counts)], pa.list_(pa.float64()))
    subject = pa.array([None if n == 3 else f"s{n}" for n in draw.integers(0, 4, ROWS)])
    columns = {
        "subject": subject, "level": pa.array(draw.integers(1, 13, ROWS)), "hard": pa.array(draw.random(ROWS) < 0.5),
        "source_id": pa.array(["own"] * ROWS), "coded": subject.dictionary_encode(),
    }  # fmt: skip
    return pa.table(
        {
            "scores": pa.StructArray.from_arrays([right, right], ["exact_match", "bleu"]),
            "statistics": pa.StructArray.from_arrays([sums], ["bleu"]),
            "input": pa.StructArray.from_arrays(list(columns.values()), list(columns)),
        }
    )


def aggregator(group_by: Sequence[str], rows: pa.Table, cuts: Sequence[int] = ()) -> Aggregator:
    names = ("exact_match", "bleu")
    made = Aggregator(find_metrics(names), TaskConfig(metrics=names, group_by=tuple(group_by)))
    for start, stop in itertools.pairwise([0, *cuts, len(rows)]):
        made.add(rows.slice(start, stop - start))
    return made


def test_each_group_has_the_summaries_of_its_own_rows() -> None:
    rows = table()
    groups = aggregator(["subject", "level", "hard", "coded"], rows, [7, 7, 1999]).groups()
    assert list(groups) == ["subject", "level", "hard", "coded"]
    assert list(groups["subject"]) == ["s0", "s1", "s2", "null"]
    assert list(groups["level"]) == [str(number) for number in range(1, 13)], "in the order of numbers"
    assert list(groups["hard"]) == ["false", "true"]
    assert groups["coded"] == groups["subject"]
    subjects = rows.column("input").combine_chunks().field("subject").to_pylist()
    for value, found in groups["subject"].items():
        mask = pa.array([("null" if one is None else one) == value for one in subjects])
        alone = aggregator([], rows.filter(mask)).summary()
        for name in ("exact_match", "bleu"):
            assert found[name]["value"] == pytest.approx(alone[name]["value"], rel=1e-12)
            assert found[name]["n"] == alone[name]["n"]
            assert found[name]["stderr"] == pytest.approx(alone[name]["stderr"], rel=0.25)
        assert found["exact_match"]["ci95"] == pytest.approx(alone["exact_match"]["ci95"])
    assert sum(found["exact_match"]["n"] for found in groups["subject"].values()) == ROWS


def test_any_cut_gives_the_same_groups() -> None:
    rows = table()
    whole = aggregator(["subject"], rows)
    for cuts in ([1], [500, 1000, 1000, 2999], range(100, 3000, 100)):
        cut = aggregator(["subject"], rows, cuts)
        assert cut.groups() == whole.groups()
        assert cut.summary() == whole.summary()


def test_a_column_with_too_many_values_is_left_out_and_said() -> None:
    count = MOST_GROUPS + 1
    rows = pa.table(
        {
            "scores": pa.StructArray.from_arrays([pa.array(np.ones(count))], ["exact_match"]),
            "input": pa.StructArray.from_arrays([pa.array(range(count)), pa.array(["x"] * count)], ["n", "same"]),
        }
    )
    for cuts in ([], [count - 1], [1]):
        made = Aggregator(find_metrics(["exact_match"]), TaskConfig(metrics=("exact_match",), group_by=("n", "same")))
        for start, stop in itertools.pairwise([0, *cuts, count]):
            made.add(rows.slice(start, stop - start))
        values = made.told({"metrics": {}, "warnings": ["gone"]})
        assert values["warnings"] == ["gone", "task.group_by: n has more than 1000 different values: left out"]
        assert list(values["groups"]) == ["same"]
        assert made.told(values)["warnings"] == values["warnings"], "said once"
    fits = Aggregator(find_metrics(["exact_match"]), TaskConfig(metrics=("exact_match",), group_by=("n",)))
    fits.add(rows.slice(1))
    assert len(fits.groups()["n"]) == MOST_GROUPS


def test_a_text_null_is_not_the_missing_value() -> None:
    """Case 35: four rows of "null", four of null, four of "x"."""
    values = ["null", None, "x", '"null"'] * 4
    scores = [1.0, 0.0, 0.5, 0.25] * 4
    rows = pa.table(
        {
            "scores": pa.StructArray.from_arrays([pa.array(scores)], ["exact_match"]),
            "input": pa.StructArray.from_arrays([pa.array(values)], ["g"]),
        }
    )
    made = Aggregator(find_metrics(["exact_match"]), TaskConfig(metrics=("exact_match",), group_by=("g",)))
    made.add(rows)
    groups = made.groups()["g"]
    assert sum(group["exact_match"]["n"] for group in groups.values()) == len(rows)
    assert {value: group["exact_match"]["value"] for value, group in groups.items()} == {
        "null": 0.0, '"null"': 0.25, '"\\"null\\""': 1.0, "x": 0.5,
    }  # fmt: skip


def test_the_users_own_id_is_found_under_its_stored_name() -> None:
    assert list(aggregator(["id"], table()).groups()["id"]) == ["own"]


def test_without_groups_nothing_is_added() -> None:
    values: dict[str, Any] = {"metrics": {}, "warnings": []}
    assert aggregator([], table()).told(values) == values


def test_columns_are_checked_when_planning() -> None:
    kinds = {"subject": pa.string(), "level": pa.int32(), "hard": pa.bool_(), "answers": pa.list_(pa.string())}
    schema = pa.schema([("index", pa.int64()), ("id", pa.string()), *kinds.items(), ("score", pa.float64())])
    check_groups(["subject", "level", "hard"], schema)
    check_groups([], schema)
    for columns, words in (
        (["subjekt"], r"no column 'subjekt' \(did you mean 'subject'\?\); its columns: subject, level, hard"),
        (["id"], "no column 'id'"),
        (["level", "level"], "'level' stands twice"),
        (["answers"], "'answers' holds list<.*string>: rows are grouped by texts, whole numbers or booleans"),
        (["score"], "'score' holds double"),
    ):
        with pytest.raises(ConfigError, match=words):
            check_groups(columns, schema)
    check_groups(["id"], schema.append(pa.field("source_id", pa.string())))


def test_a_users_metric_without_a_fold_has_groups() -> None:
    class Plain:
        name = "plain"

    rows = pa.table(
        {
            "scores": pa.StructArray.from_arrays([pa.array([1.0, None, 3.0])], ["plain"]),
            "input": pa.StructArray.from_arrays([pa.array(["a", "a", "b"])], ["c"]),
        }
    )
    made = Aggregator([Plain()], TaskConfig(group_by=("c",)))  # type: ignore[list-item]
    made.add(rows)
    means = {value: group["plain"]["value"] for value, group in made.groups()["c"].items()}
    assert means == {"a": 1.0, "b": 3.0}
    fold = MeanFold()
    fold.add(np.array([1.0, np.nan, 3.0]))
    assert made.summary() == {"plain": {**fold.summary(), "unscored": 1}}


def test_without_clusters_each_sample_is_its_own() -> None:
    fold = ClusteredFold(MeanFold())
    ScoredBatch(np.array([1.0, 0.0, 0.5]), None).feed(fold)
    ScoredBatch(np.array([1.0, 0.0]), None, np.array([7, 7])).take(np.array([1, 0])).part(0, 2).feed(fold)
    assert (fold.summary()["n"], fold.summary()["clusters"]) == (5, 4)


def test_a_part_has_its_own_samples() -> None:
    lists = pa.array([[1.0], None, [3.0], [4.0]], pa.list_(pa.float64()))
    batch = ScoredBatch(np.array([1.0, np.nan, np.nan, 4.0]), lists, np.array([0, 1, 2, 3]))
    assert batch.missing.tolist() == [False, True, False, False]
    assert ScoredBatch(batch.scores, None).missing.tolist() == [False, True, True, False]
    part = batch.take(np.array([3, 2, 1, 0])).part(1, 3)
    assert np.array_equal(part.scores, [np.nan, np.nan], equal_nan=True)
    assert part.statistics is not None
    assert part.statistics.to_pylist() == [[3.0], None]
    assert part.clusters is not None
    assert part.clusters.tolist() == [2, 1]
    assert (ScoredBatch(batch.scores, None).part(0, 1).statistics, batch.part(3, 4).scores.tolist()) == (None, [4.0])


def test_numbers_booleans_and_null_are_named_as_in_json() -> None:
    columns = {"n": [10, 9, None], "b": [True, None, False]}
    arrays = pa.StructArray.from_arrays([pa.array(one) for one in columns.values()], list(columns))
    rows = pa.table({"scores": pa.StructArray.from_arrays([pa.array(np.ones(3))], ["f1"]), "input": arrays})
    made = Aggregator(find_metrics(["f1"]), TaskConfig(metrics=("f1",), group_by=("n", "b")))
    made.add(rows)
    assert {column: list(values) for column, values in made.groups().items()} == {
        "n": ["9", "10", "null"], "b": ["false", "true", "null"],
    }  # fmt: skip


def test_codes_of_texts_and_rows_of_nothing_but_null_can_be_grouped() -> None:
    schema = pa.schema([("coded", pa.dictionary(pa.int8(), pa.string())), ("none", pa.null()),
                        ("large", pa.large_string()), ("reals", pa.dictionary(pa.int8(), pa.float64()))])  # fmt: skip
    check_groups(["coded", "none", "large"], schema)
    with pytest.raises(ConfigError, match="'reals' holds dictionary"):
        check_groups(["reals"], schema)
    with pytest.raises(ConfigError, match=r"^task\.cluster_by: no column 'x'; its columns: none$"):
        check_groups(["x"], pa.schema([("index", pa.int64()), ("id", pa.string())]), "task.cluster_by")
