"""Of a metric of one's own lower values are better: gates, errors, groups and the report's worst rows follow it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.compare.eval_findings import find
from hpcjobs.errors import ConfigError
from hpcjobs.merge.eval import merge
from hpcjobs.merge.score import rescore
from hpcjobs.plan.eval import make_plan
from hpcjobs.report.page import write_report
from hpcjobs.report.row_selection import pick_rows
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.paths import RunPaths
from tests.runs import config_of, run_ranks

# The dummy engine's answers do not matter: the distance of a row stands in its target, 0 at best.
METRICS = """
class Distance:
    lower_is_better = True

    def score(self, completion, target, row):
        return float(target)


class Share(Distance):
    bounds = (0, 1)
"""
A, WORSE, BETTER = [4.0, 2.0, 6.0, 4.0], [5.0, 3.0, 6.0, 4.0], [3.0, 1.0, 6.0, 4.0]


@pytest.fixture
def folder(ram: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (ram / "own_distance.py").write_text(METRICS)
    monkeypatch.syspath_prepend(str(ram))
    return ram


def run_of(
    folder: Path, name: str, distances: list[float], error_in: int | None = None, metric: str = "Distance", **more: Any
) -> RunPaths:
    """A merged run; the prompt of the row `error_in` cannot be made."""
    data = folder / f"{name}.jsonl"
    rows = [{"id": f"r{n}", "q": f"q{n}", "gold": each, "g": "ab"[n % 2]} for n, each in enumerate(distances)]
    rows = [row | {"d": int(n != error_in)} for n, row in enumerate(rows)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task: dict[str, Any] = {
        "prompt": "{{ q }}{{ 1 // d }}", "target": "{{ gold }}",
        "metrics": [f"own_distance:{metric}"], "group_by": ["g"],
    }  # fmt: skip
    task |= more
    config = config_of(data, {"task": task, "run": {"max_errors": 0.5}})
    draft = make_plan("eval", config, folder / name)
    draft.write()
    run_ranks(draft.paths, 1)
    merge(draft.paths)
    return draft.paths


def gated(a: RunPaths, b: RunPaths, limit: str, metric: str = "Distance", partly: bool = False) -> tuple[int, str]:
    findings = find(a, b, [f"{metric}={limit}"], partly, None)
    return findings.exit_code(), findings.gates[0].line()


def test_an_improvement_passes_and_a_regression_does_not(folder: Path) -> None:
    a, worse, better = (run_of(folder, name, each) for name, each in (("a", A), ("worse", WORSE), ("better", BETTER)))
    assert gated(a, better, "0") == (0, "gate    Distance: passed: B is not higher")
    assert gated(a, worse, "0.1") == (1, "gate    Distance: REGRESSION: B is higher by 0.5, more than 0.1")
    assert gated(a, worse, "0.5")[0] == 0
    findings = find(a, worse, [], False, None)
    values: Any = findings.values()
    assert values["metrics"]["Distance"]["lower_is_better"]
    assert "0 lower, 2 higher in B; lower is better" in "\n".join(findings.lines())
    found: Any = read_json(a.metrics)
    assert found["metrics"]["Distance"] == {**found["metrics"]["Distance"], "value": 4.0, "lower_is_better": True}
    assert {value: group["Distance"]["value"] for value, group in found["groups"]["g"].items()} == {"a": 5.0, "b": 3.0}


def test_an_error_is_no_improvement(folder: Path) -> None:
    a, b = run_of(folder, "a", A), run_of(folder, "b", A, error_in=2)
    code, line = gated(a, b, "0")
    assert (code, "NOT DECIDED: incomplete: Distance of some pairs" in line) == (3, True)
    assert gated(a, b, "0", partly=True) == (0, "gate    Distance: passed: B is not higher")
    merged: Any = read_json(b.metrics)
    assert (merged["metrics"]["Distance"]["n"], merged["metrics"]["Distance"]["value"]) == (3, pytest.approx(10 / 3))
    rescored = rescore(b, [], None)["metrics"]["Distance"]
    assert rescored == merged["metrics"]["Distance"], "score says the same"


def test_with_bounds_an_error_is_the_worst_score(folder: Path) -> None:
    shares = [0.5, 0.25, 0.0, 0.25]
    a, b = run_of(folder, "a", shares, metric="Share"), run_of(folder, "b", shares, 2, "Share")
    assert gated(a, b, "0.1", "Share") == (1, "gate    Share: REGRESSION: B is higher by 0.25, more than 0.1")
    assert gated(b, a, "0", "Share")[0] == 0


def test_what_a_run_of_an_earlier_version_does_not_say_is_said_by_the_other(folder: Path) -> None:
    a, b = run_of(folder, "a", A), run_of(folder, "b", WORSE)
    old: Any = read_json(a.metrics)
    del old["metrics"]["Distance"]["lower_is_better"]
    a.metrics.write_text(json.dumps(old))
    assert gated(a, b, "0")[0] == 1
    [said] = [line for line in find(a, b, [], False, None).warnings() if "lower" in line]
    assert said == "Distance: only B says that lower is better, which is taken; hpcjobs merge records it"


def test_the_reports_worst_rows_are_those_with_the_highest_scores(folder: Path) -> None:
    paths = run_of(folder, "a", A)
    assert pick_rows(paths.results, ["Distance"]).worst[0] == 2
    assert pick_rows(paths.results).worst[0] == 1
    write_report(paths)
    page = re.sub(r"\s+", " ", paths.report.read_text(encoding="utf-8"))
    assert "Distance <small>(lower is better)</small>" in page
    assert "Highest scores" in page
    assert "gives most to, and lower is better; 1 row share the highest score" in page


def test_in_clusters_the_direction_is_the_same_and_the_error_another(folder: Path) -> None:
    a, b = (run_of(folder, name, each, cluster_by="g") for name, each in (("a", A), ("b", [5.0, 2.0, 7.0, 4.0])))
    assert gated(a, b, "0.1") == (1, "gate    Distance: REGRESSION: B is higher by 0.5, more than 0.1")
    found: Any = find(a, b, [], False, None).values()
    assert found["metrics"]["Distance"]["clusters"] == 2
    assert found["metrics"]["Distance"]["stderr"] == pytest.approx(0.5), "both differences are in one of two clusters"
    merged: Any = read_json(a.metrics)
    assert merged["metrics"]["Distance"]["clusters"] == 2
    assert merged["metrics"]["Distance"]["stderr"] == pytest.approx(1.0), "the clusters' means are 5 and 3"
    assert {value: group["Distance"]["clusters"] for value, group in merged["groups"]["g"].items()} == {"a": 1, "b": 1}
    plain = run_of(folder, "plain", A)
    said = [line for line in find(plain, b, [], False, None).warnings() if "cluster" in line]
    assert said == ["task.cluster_by is None in A and g in B: the pairs' clusters are by g"]


def test_a_column_that_is_not_there_is_told_when_planning(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"task\.cluster_by: no column 'gg' \(did you mean 'g'\?\); its columns: "):
        run_of(folder, "a", A, cluster_by="gg")
