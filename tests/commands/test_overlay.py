"""Two trainings in one picture: both lines on the same axes, nothing of theirs unescaped."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hpcjobs.report.axis import round_numbers
from hpcjobs.report.curve import HEIGHT, WIDTH, draw_both, draw_curve
from hpcjobs.run_folder.paths import RunPaths
from tests.compare.test_train import steps, training
from tests.fake_slurm import Shell
from tests.trainings import record


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


@pytest.fixture
def runs(shell: Shell) -> list[RunPaths]:
    worse = [record(step, loss=2 / step, eval_loss=None) for step in range(1, 13)]
    return [
        training(shell.runs / "a", steps(8)),
        training(shell.runs / "b", worse, 12, learning_rate=2e-3),
    ]


def places(path: str) -> list[tuple[float, float]]:
    """The points of SVG path data."""
    return [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", path)]


def test_both_lines_stand_on_the_same_axes() -> None:
    drawing = draw_both(steps(8), [record(step, loss=2 / step) for step in range(1, 13)])
    assert drawing is not None
    a, b = (places(line.loss) for line in drawing.lines)
    assert (len(a), len(b)) == (8, 12)
    assert [x for x, _ in a] == [x for x, _ in b[:8]], "the same step is at the same place"
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in [*a, *b])
    assert a[1][1] == b[3][1], "1 / 2 is as high as 2 / 4"
    assert all(lower > higher for (_, lower), (_, higher) in zip(a, b, strict=False)), "a greater loss stands higher"
    assert drawing.starts == []
    assert drawing.summary.startswith(
        "A: loss 1 at step 1, 0.125 at step 8; validation loss 0.25 after step 8; B: loss 2"
    )


def test_a_training_of_one_step_has_no_line() -> None:
    drawing = draw_both(steps(8), steps(1))
    assert drawing is not None
    assert [line.name for line in drawing.lines] == ["A"]
    assert draw_both(steps(1), []) is None
    assert draw_curve(steps(1)) is None


def test_a_constant_loss_is_a_line_in_the_middle() -> None:
    drawing = draw_curve(steps(4, loss=3.0, eval_loss=None))
    assert drawing is not None
    assert len({y for _, y in places(drawing.lines[0].loss)}) == 1


@pytest.mark.parametrize(
    ("low", "high", "whole", "ticks"),
    [
        (1, 12, True, [2, 4, 6, 8, 10, 12]), (1, 4, True, [1, 2, 3, 4]),
        (0.0, 1.0, False, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.95, 1.05, False, [0.96, 0.98, 1.0, 1.02, 1.04]),
    ],
)  # fmt: skip
def test_ticks_are_round_numbers(low: float, high: float, whole: bool, ticks: list[float]) -> None:
    assert round_numbers(low, high, whole) == pytest.approx(ticks)


def test_the_page(shell: Shell, runs: list[RunPaths]) -> None:
    said = shell.run("compare", "a", "b", "--report", "both.html", "--gate", "loss=0")
    assert said.code == 1
    assert said.out.splitlines()[-1] == "report  both.html"
    page = (shell.home / "both.html").read_text()
    assert page.count('class="loss A"') == page.count('class="loss B"') == 1
    assert page.count('class="validation A"') == 2
    assert '<th scope="row">train.learning_rate</th><td>0.001</td><td>0.002</td>' in page
    assert '<th scope="row">steps</th><td class="number">8</td><td class="number">12</td>' in page
    assert "<strong>gate    loss: REGRESSION: B is higher by" in page
    assert "batches the same samples in the same order, in all 8 steps" in page
    assert "the last loss is that of step 8 in A, and of step 12 in B" in page
    assert not re.search(r'(?:src|href)="|<script', page), "it needs nothing but itself"
    assert (shell.home / "both.html").stat().st_mode & 0o777 == 0o600


def test_what_a_user_wrote_is_escaped(shell: Shell, runs: list[RunPaths]) -> None:
    text = runs[1].config.read_text()
    assert "{{ question }}" in text
    runs[1].config.write_text(text.replace("{{ question }}", "<script>{{ question }}\\u202e"))
    shell.run("compare", "a", "b", "--report", "both.html")
    page = (shell.home / "both.html").read_text()
    assert "&lt;script&gt;" in page
    assert "<script" not in page


@pytest.mark.parametrize(
    ("report", "told"),
    [("runs/a/x.html", "--report runs/a/x.html is inside the run"), ("none/x.html", "--report none")],
)
def test_where_no_page_may_stand(shell: Shell, runs: list[RunPaths], report: str, told: str) -> None:
    said = shell.run("compare", "a", "b", "--report", report, "--out", "steps.jsonl")
    assert (said.code, said.out) == (2, "")
    assert told in said.message
    assert not (shell.home / "steps.jsonl").exists(), "nothing is written"
