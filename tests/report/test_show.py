"""show: which samples it chooses, held against the table itself, and what it says of them."""

from __future__ import annotations

import json
import operator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from hpcjobs.cli.app import main
from hpcjobs.errors import HpcJobsError, UsageError
from hpcjobs.merge.eval import merge
from hpcjobs.report.show import Condition, Wanted, find_samples
from hpcjobs.run_folder.paths import RunPaths
from tests.runs import answer, plan_run, run_ranks

ROWS = 40


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """Each third row has a right answer, each 19th fails in its template."""
    paths = plan_run(tmp_path_factory.mktemp("show") / "run", ROWS)
    run_ranks(paths, 1)
    merge(paths)
    return paths


def table(paths: RunPaths) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(paths.results).to_pylist()
    return rows


def ids(paths: RunPaths, **wanted: Any) -> list[str]:
    return [sample.row["id"] for sample in find_samples(paths, Wanted(**{"limit": 1000} | wanted)).samples]


@pytest.mark.parametrize(
    ("text", "compare", "number"),
    [
        ("exact_match<0.5", operator.lt, 0.5), ("exact_match <= 0", operator.le, 0), ("exact_match>0", operator.gt, 0),
        ("exact_match>=1", operator.ge, 1), ("exact_match=1", operator.eq, 1), ("exact_match == 0", operator.eq, 0),
        ("exact_match!=1", operator.ne, 1),
    ],
)  # fmt: skip
def test_a_condition_holds_for_the_rows_of_the_table_for_which_it_holds(
    paths: RunPaths, text: str, compare: Any, number: float
) -> None:
    expected = [row["id"] for row in table(paths) if compare(row["scores"]["exact_match"], number)]
    assert ids(paths, conditions=[text]) == expected
    assert 0 < len(expected) < ROWS


def test_tokens_and_the_reason_of_the_end(paths: RunPaths) -> None:
    rows = table(paths)
    median = sorted(row["prompt_tokens"] for row in rows)[ROWS // 2]
    assert ids(paths, conditions=[f"prompt_tokens>{median}"]) == [r["id"] for r in rows if r["prompt_tokens"] > median]
    failed = [row["id"] for row in rows if row["error"] is not None]
    assert ids(paths, conditions=["finish_reason!=stop"]) == failed == ids(paths, errors=True) == ["row-18", "row-37"]
    both = ids(paths, conditions=["exact_match=1", f"prompt_tokens>{median}"])
    assert both == [r["id"] for r in rows if r["prompt_tokens"] > median and r["scores"]["exact_match"] == 1]


def test_ids_and_the_limit(paths: RunPaths) -> None:
    assert ids(paths, ids=["row-7", "row-3"]) == ["row-3", "row-7"]
    found = find_samples(paths, Wanted(limit=4))
    assert (len(list(found.samples)), found.total) == (4, ROWS)
    with pytest.raises(UsageError, match="no sample 'row-99' has a result"):
        find_samples(paths, Wanted(ids=["row-1", "row-99"]))


def test_a_sample_as_text_and_as_json(paths: RunPaths, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(paths.root), "--id", "row-0", "--id", "row-18"]) == 0
    shown = capsys.readouterr().out.splitlines()
    right = answer("né 0  60")
    assert shown[:4] == [
        "# row-0  (row 0)  exact_match 1.0000  contains 1.0000", "prompt: né 0  60", f"target: {right}",
        f"answer (stop, 1 tokens): {right}",
    ]  # fmt: skip
    assert shown[5].startswith("# row-18  (row 18)")
    assert shown[6].startswith("no prompt: the template fails on this row: ")
    assert any(line.startswith("error ") and "division" in line for line in shown)
    assert main(["show", str(paths.root), "--metric", "exact_match=1", "--limit", "2", "--json"]) == 0
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]
    assert [line["id"] for line in lines] == ["row-0", "row-3"]
    assert lines[0]["prompt"] == [{"role": "prompt", "content": "né 0  60"}]
    assert (lines[0]["targets"], lines[0]["scores"]) == ([right], {"exact_match": 1.0, "contains": 1.0})
    assert captured.err.startswith("2 of ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("f1<0.5", "no 'f1' here"), ("exact_mach<1", "did you mean 'exact_match'"), ("exact_match", "NAME<NUMBER"),
        ("exact_match<nan", "'nan' is no number"),
        ("exact_match<half", "'half' is no number"), ("finish_reason<3", "compare it by = or !="),
    ],
)  # fmt: skip
def test_a_wrong_condition_says_what_there_is(paths: RunPaths, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        find_samples(paths, Wanted(conditions=[text]))


def test_no_number_meets_no_condition() -> None:
    import pyarrow as pa

    scores = [{"m": float("nan")}, {"m": None}, {"m": 1.0}, None]
    batch = pa.RecordBatch.from_pylist([{"scores": one} for one in scores])
    for sign in ("<", "<=", ">", ">=", "=", "!="):
        held = Condition.parse(f"m{sign}0.5", ["m"]).holds(batch).tolist()
        assert held[0] is held[1] is held[3] is False
    assert Condition.parse("m!=0.5", ["m"]).holds(batch).tolist() == [False, False, True, False]


def test_a_run_without_results_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fresh has no results yet; next: hpcjobs merge fresh"):
        find_samples(plan_run(tmp_path / "fresh", 3), Wanted())


def test_a_choice_shows_its_options_and_the_right_one_by_its_text(tmp_path: Path) -> None:
    task = {"type": "choice", "prompt": "{{ question }}", "choices": ["yes", "no"], "target": "1", "metrics": ["acc"]}
    paths = plan_run(tmp_path / "run", 2, task=task)
    run_ranks(paths, 1)
    merge(paths)
    [first, _] = [list(sample.lines()) for sample in find_samples(paths, Wanted()).samples]
    assert "target: no" in first
    assert [line.partition(": ")[2] for line in first if line.startswith("option (")] == ["yes", "no"]


def test_a_damaged_table_is_named(paths: RunPaths, tmp_path: Path) -> None:
    import shutil

    copied = RunPaths(tmp_path / "copied")
    shutil.copytree(paths.root, copied.root, symlinks=True)
    results = copied.results.read_bytes()
    copied.results.unlink()
    copied.results.write_bytes(results[:300])
    with pytest.raises(HpcJobsError, match=r"results\.parquet cannot be read: .*; next: hpcjobs merge"):
        find_samples(copied, Wanted())
