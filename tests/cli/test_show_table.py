"""table: the same numbers in each format, read back by the format's own reader."""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hpcjobs.cli.app import main
from hpcjobs.commands.merge import merge_and_report
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.paths import RunPaths
from tests.runs import plan_run, run_ranks


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunPaths]:
    """A scored run, one of another metric, one that is only planned, and one whose plan is damaged."""
    folder = tmp_path_factory.mktemp("runs")
    scored = plan_run(folder / "p|q" / "a_1", 20)
    other = plan_run(folder / "b", 10, task={"prompt": "{{ question }}", "target": "x", "metrics": ["f1"]})
    for paths in (scored, other):
        run_ranks(paths, 1)
        merge_and_report(paths)
    damaged = plan_run(folder / "d", 3)
    run_ranks(damaged, 1)
    merge_and_report(damaged)
    values = read_json(damaged.metrics)
    values["metrics"]["contains"]["value"] = "x"
    damaged.metrics.write_text(json.dumps(values))
    return [scored, other, plan_run(folder / "c", 5), damaged]


def printed(runs: list[RunPaths], capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["table", *(str(paths.root) for paths in runs), *words]) == 0
    return capsys.readouterr().out


def test_csv_has_all_digits_and_every_run(runs: list[RunPaths], capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(printed(runs, capsys, "--format", "csv"))))
    assert [row["run"] for row in rows] == ["a_1", "b", "c", "d"]
    for row, paths in zip(rows[:2], runs, strict=False):
        for name, one in read_json(paths.metrics)["metrics"].items():
            assert float(row[name]) == one["value"]
            assert float(row[f"{name}_stderr"]) == one["stderr"]
            assert [float(row[f"{name}_ci95_low"]), float(row[f"{name}_ci95_high"])] == one["ci95"]
            assert int(row[f"{name}_n"]) == one["n"]
    assert (rows[0]["f1"], rows[1]["exact_match"], rows[2]["f1"]) == ("", "", "")
    assert (rows[2]["done"], rows[2]["rows"]) == ("0", "5")
    assert (rows[3]["state"], "metrics.json" in rows[3]["why"]) == ("damaged", True)


def test_json_is_metrics_json_of_each(runs: list[RunPaths], capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(printed(runs, capsys, "--json"))
    assert [row["metrics"] for row in rows] == [*(read_json(paths.metrics)["metrics"] for paths in runs[:2]), {}, {}]


class Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip("\n")


def test_markdown_latex_html_and_text_have_the_same_cells(
    runs: list[RunPaths], capsys: pytest.CaptureFixture[str]
) -> None:
    parser = Cells()
    parser.feed(printed(runs, capsys, "--format", "html"))
    head, first, *_ = parser.rows
    assert head == ["run", "model", "data", "state", "samples", "exact_match", "contains", "f1"]
    value = read_json(runs[0].metrics)["metrics"]["exact_match"]
    assert (first[0], "p|q/a_1.jsonl" in first[2]) == ("a_1", True)
    assert first[5] == f"{value['value']:.4f} ± {value['stderr']:.4f}"
    lines = printed(runs, capsys, "--format", "md").splitlines()
    cells = [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert [cells[0], *cells[2:]] == parser.rows
    body = printed(runs, capsys, "--format", "latex").splitlines()
    assert body[1].startswith("run & model & data & state & samples & exact\\_match & contains & f1")
    assert body[3].startswith("a\\_1 & ")
    text = printed(runs, capsys).splitlines()
    assert [re.split(r" {2,}", line)[0] for line in text] == ["run", "a_1", "b", "c", "d"]
    starts = [text[0].index(name) for name in head]
    assert [text[1][start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True)] == first


def test_without_names_all_under_the_root_and_a_wrong_format_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HPCJOBS_RUNS", str(tmp_path))
    plan_run(tmp_path / "one", 3)
    assert main(["table"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("one ")
    assert main(["table", "--format", "mkd"]) == 2
    assert "did you mean 'md'" in capsys.readouterr().err
