"""A metric of an lm_eval task that fails costs its own value, and an error is in no metric."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from hpcjobs.config.resolve import read_config
from hpcjobs.merge.eval import merge
from hpcjobs.merge.score import rescore
from hpcjobs.metrics import Aggregator
from hpcjobs.plan.eval import make_plan
from hpcjobs.tasks.lmeval.fold import planned_metrics
from tests.lmeval_tasks import alone, dummy_lm, write_tasks
from tests.tasks.lmeval.test_run import config_of, planned, run_through


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")  # for lm_eval alone, which bootstraps in a process a core


def test_an_aggregation_that_raises_or_gives_no_number_costs_its_own_value(tmp_path: Path) -> None:
    paths = planned(tmp_path, "faulty")
    with pytest.raises(ValueError, match="multiclass"):
        alone(dummy_lm(), "faulty", tmp_path / "tasks", bootstrap_iters=0)
    text = (tmp_path / "tasks" / "faulty.yaml").read_text()
    (tmp_path / "tasks" / "faulty.yaml").write_text("".join(line for line in text.splitlines(True) if "f1" not in line))
    theirs = alone(dummy_lm(), "faulty", tmp_path / "tasks", bootstrap_iters=0)["results"]["faulty"]
    rows, ours = run_through(paths)
    assert len(rows) == 30
    assert (ours["acc,none"]["value"], ours["acc,none"]["n"]) == (theirs["acc,none"], 30)
    assert (ours["f1,none"]["value"], ours["f1,none"]["n"]) == (None, 30)
    warnings = json.loads(paths.metrics.read_text())["warnings"]
    assert [line[:70] for line in warnings] == [
        "f1,none: its aggregation over faulty raises ValueError: Target is mult",
        "mcc,none: its aggregation over faulty gives nan, which is no number",
    ]
    merge(paths)
    assert json.loads(paths.metrics.read_text())["warnings"] == warnings


def test_a_document_with_an_error_is_in_no_metric(tmp_path: Path) -> None:
    rows, ours = run_through(planned(tmp_path, "part"))
    good = [row["scores"]["first,none"] for row in rows if not row["metric_errors"]]
    assert len(good) == 20
    assert all(row["scores"]["first,none"] is None for row in rows if row["metric_errors"])
    assert all(row["error"] is None for row in rows), "each has its completion"
    for name in ("first,none", "pairs,none"):
        assert ours[name]["n"] == 20
        assert ours[name]["value"] == pytest.approx(sum(good) / 20)


def test_a_metric_that_raises_costs_the_others_nothing(tmp_path: Path) -> None:
    paths = planned(tmp_path, "picky")
    code = tmp_path / "tasks" / "utils.py"
    code.write_text(code.read_text().replace('raise ValueError("a long one")', "pass"))
    theirs = alone(dummy_lm(), "picky", tmp_path / "tasks", bootstrap_iters=1000)["results"]["picky"]
    rows, ours = run_through(paths)
    long = [row for row in rows if len(json.loads(row["input"]["doc"])["word"]) > 5]
    assert 0 < len(long) < 30
    for name in ("exact_match,none", "bleu,none"):
        assert (ours[name]["value"], ours[name]["n"]) == (theirs[name], 30)
    assert ours["short,none"]["n"] == 30 - len(long)
    assert all(row["metric_errors"][0]["metric"] == "short,none" for row in long)
    warnings = json.loads(paths.metrics.read_text())["warnings"]
    assert any("short,none failed" in line and "a long one" in line for line in warnings)
    after = rescore(paths, [], None)["metrics"]["short,none"]
    assert (after["value"], after["n"]) == (theirs["short,none"], 30)


def test_the_zeros_that_earlier_versions_wrote_for_errors_do_not_count(tmp_path: Path) -> None:
    paths = planned(tmp_path, "part")
    run_through(paths)
    table, config = pq.read_table(paths.results), read_config(paths.config)
    metrics = planned_metrics(paths.code)
    scores = pa.StructArray.from_arrays(
        [pc.fill_null(one, 0.0) for one in table.column("scores").combine_chunks().flatten()],
        fields=list(table.schema.field("scores").type),
    )
    old = table.set_column(table.column_names.index("scores"), "scores", scores)
    wrong = [{"type": "KeyError", "message": ""} if found else None for found in old["metric_errors"].to_pylist()]
    error = pa.array(wrong, old.schema.field("error").type)
    old = old.set_column(old.column_names.index("error"), "error", error).drop_columns(["metric_errors"])
    aggregator = Aggregator(metrics, config.task)
    aggregator.add(old)
    assert {one["n"] for one in aggregator.summary().values()} == {20}


def test_groups_within_a_group_have_values_of_their_own(tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks", rows=12)
    weighted = {"aggregate_metric_list": [{"metric": "acc", "weight_by_size": False}]}
    inner = {"group": "inner", "task": ["blank", "pick"]} | weighted
    groups = {
        "outer": {"group": "outer", "task": ["last", "inner", "bare"]} | weighted, "inner": inner,
        "bare": {"group": "bare", "task": ["labels"]},
    }  # fmt: skip
    for name, content in groups.items():
        (folder / f"{name}.yaml").write_text(json.dumps(content))
    theirs = alone(dummy_lm(), "outer", folder, bootstrap_iters=1000)["groups"]
    draft = make_plan("eval", config_of(folder, "outer"), tmp_path / "run")
    draft.write()
    _, ours = run_through(draft.paths)
    assert set(ours["group"]) == {"inner"} == {name for name in theirs if "acc,none" in theirs[name]} - {"outer"}
    for name, found in (("inner", ours["group"]["inner"]), ("outer", ours)):
        assert found["acc,none"]["value"] == theirs[name]["acc,none"]
        assert found["acc,none"]["stderr"] == theirs[name]["acc_stderr,none"]
    assert (ours["group"]["inner"]["acc,none"]["n"], ours["acc,none"]["n"]) == (24, 48)
