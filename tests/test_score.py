from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from hpcjobs.errors import ConfigError, UsageError
from hpcjobs.merge import merge
from hpcjobs.paths import RunPaths
from hpcjobs.score import rescore
from tests.runs import answer, hpcjobs, plan_run, rows_of, run_ranks, said

ROWS = 40


@pytest.fixture
def paths(ram: Path) -> RunPaths:
    """A merged run."""
    found = plan_run(ram / "run", ROWS)
    run_ranks(found, 1)
    assert merge(found).complete
    return found


def scores(paths: RunPaths, name: str) -> list[float]:
    return [row[name] for row in pq.read_table(paths.results).column("scores").to_pylist()]


def test_the_same_metrics_give_the_same_again(paths: RunPaths) -> None:
    table, before = pq.read_table(paths.results), said(paths)
    rescore(paths, [], None)
    assert pq.read_table(paths.results).equals(table)
    assert said(paths) == before


def test_other_metrics_replace_the_scores_and_nothing_else(paths: RunPaths) -> None:
    table, exact = pq.read_table(paths.results), scores(paths, "exact_match")
    summary = rescore(paths, ["f1", "exact_match"], None)
    found = pq.read_table(paths.results)
    assert [field.name for field in found.schema.field("scores").type] == ["f1", "exact_match"]
    assert scores(paths, "exact_match") == exact
    assert scores(paths, "f1") == exact, "one word each: F1 is exact match"
    assert found.drop_columns(["scores"]).equals(table.drop_columns(["scores"]))
    assert json.loads(paths.metrics.read_text()) == summary
    assert list(summary["metrics"]) == ["f1", "exact_match"]
    assert summary["complete"] is True
    assert summary["provenance"]["rescored_at"] >= summary["provenance"]["merged_at"]


def test_another_target_is_compared_with(paths: RunPaths) -> None:
    right = answer(f"{rows_of(ROWS)[0]['question']} 60")
    rescore(paths, ["exact_match"], right)
    assert scores(paths, "exact_match") == [1.0] + [0.0] * (ROWS - 1)
    rescore(paths, ["contains"], "a")
    texts = pq.read_table(paths.results).column("completion").to_pylist()
    assert scores(paths, "contains") == [float("a" in text) for text in texts]
    assert 0 < sum(scores(paths, "contains")) < ROWS


def test_a_sample_with_an_error_counts_zero_though_its_text_would_match(paths: RunPaths) -> None:
    summary = rescore(paths, ["exact_match", "f1"], "{{ '' }}")
    assert summary["counts"]["errors"] == sum(not row["divisor"] for row in rows_of(ROWS)) > 0
    assert scores(paths, "exact_match") == scores(paths, "f1") == [0.0] * ROWS
    assert summary["metrics"]["f1"]["n"] == ROWS


def test_a_generate_run_gets_scores(ram: Path) -> None:
    paths = plan_run(ram / "run", ROWS, "generate")
    run_ranks(paths, 1)
    merge(paths)
    rescore(paths, ["contains"], "{{ gold }}")
    other = plan_run(ram / "other", ROWS)
    run_ranks(other, 1)
    merge(other)
    assert scores(paths, "contains") == scores(other, "contains")


def test_an_incomplete_run_stays_so(paths: RunPaths) -> None:
    journal = paths.journal("a", 0)
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-2]))
    assert len(merge(paths).missing) == 2
    told = hpcjobs("score", paths.root, "--metric", "f1")
    assert told.returncode == 3, told.stderr
    assert (said(paths)["complete"], said(paths)["metrics"]["f1"]["n"]) == (False, ROWS - 2)


def test_what_cannot_be_scored_is_said_and_changes_nothing(paths: RunPaths, ram: Path) -> None:
    before = paths.results.read_bytes(), paths.metrics.read_bytes()
    with pytest.raises(ConfigError, match=r"no metric 'exat_match'.*did you mean 'exact_match'"):
        rescore(paths, ["exat_match"], None)
    with pytest.raises(ConfigError, match="'golden'"):
        rescore(paths, [], "{{ golden }}")
    assert (paths.results.read_bytes(), paths.metrics.read_bytes()) == before
    planned = plan_run(ram / "planned", 3)
    with pytest.raises(UsageError, match="does not exist yet; next: hpcjobs merge planned"):
        rescore(planned, [], None)
    untargeted = plan_run(ram / "untargeted", 3, "generate", task={"prompt": "{{ question }}", "target": None})
    run_ranks(untargeted, 1)
    merge(untargeted)
    with pytest.raises(ConfigError, match=r"no task\.target to compare with"):
        rescore(untargeted, ["f1"], None)
    with pytest.raises(ConfigError, match="no metric to score with"):
        rescore(plan_of_no_metrics(ram), [], None)


def plan_of_no_metrics(folder: Path) -> RunPaths:
    paths = plan_run(folder / "none", 3, "generate", task={"prompt": "{{ question }}", "metrics": []})
    run_ranks(paths, 1)
    merge(paths)
    return paths
