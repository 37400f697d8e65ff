"""compare: real runs against each other, through the command line."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from hpcjobs.compare.eval import Side, compare
from hpcjobs.compare.eval_findings import Findings, find
from hpcjobs.compare.statistics import mcnemar
from hpcjobs.errors import MergeError, UsageError
from hpcjobs.launch.slurm import clean_environment
from hpcjobs.merge.eval import merge
from hpcjobs.plan.eval import make_plan
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.paths import RunPaths
from tests.runs import DEADLINE, answer, config_of, hpcjobs, plan_run, rows_of, run_ranks

ROWS = 60
# Each third row's gold is the answer to this prompt; a "!" makes another answer of it.
PROMPT = "{{ question }} {{ 60 // divisor }}"
LOST = [0, 9, 21, 33]
OTHER_METRICS = {"a": ["exact_match", "contains"], "b": ["exact_match"]}


def run_of(folder: Path, rows: list[dict[str, Any]], wrong: list[int] | None = None, **task: Any) -> RunPaths:
    """A merged run of `rows`, in which the prompts of the ids `row-<wrong>` are other ones."""
    data = folder.with_suffix(".jsonl")
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spoiled = [f"row-{number}" for number in wrong or ()]
    prompt = PROMPT + f"{{{{ '!' * (id in {json.dumps(spoiled)}) }}}}"
    paths = make_plan("eval", config_of(data, {"task": {"prompt": prompt} | task}), folder)
    paths.write()
    return finished(paths.paths)


def finished(paths: RunPaths) -> RunPaths:
    run_ranks(paths, 1)
    merge(paths)
    return paths


def cut(paths: RunPaths, lines: int) -> None:
    """Take the last records of the journal away, and merge again."""
    journal = paths.journal("a", 0)
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-lines]))
    paths.metrics.unlink()
    assert len(merge(paths).missing) == lines


def said(*words: str | Path) -> tuple[int, dict[str, Any]]:
    """Exit code and values of `hpcjobs compare ... --json`."""
    done = hpcjobs("compare", *words, "--json")
    return done.returncode, json.loads(done.stdout)


@pytest.fixture
def a(ram: Path) -> RunPaths:
    return run_of(ram / "a", rows_of(ROWS))


@pytest.fixture
def b(ram: Path) -> RunPaths:
    """The same rows; four answers that were right are wrong now, and two wrong ones are others."""
    return run_of(ram / "b", rows_of(ROWS), [*LOST, 5, 8])


def test_the_difference_and_the_flips(a: RunPaths, b: RunPaths, ram: Path) -> None:
    code, values = said(a.root, b.root, "--out", ram / "flips.jsonl")
    right = len([n for n in range(0, ROWS, 3) if n % 19 != 18])
    assert code == 0
    metric = values["metrics"]["exact_match"]
    assert (metric["n"], metric["a"], metric["b"]) == (ROWS, right / ROWS, (right - 4) / ROWS)
    assert metric["difference"] == pytest.approx(-4 / ROWS)
    assert (metric["lower"], metric["higher"], metric["unscored"]) == (4, 0, 0)
    assert metric["mcnemar"] == vars(mcnemar(4, 0))
    for name in ("ci95", "bootstrap_ci95"):
        assert metric[name][0] < -4 / ROWS < metric[name][1] <= 0.01
    assert [flip["id"] for flip in values["flips"]] == [f"row-{n}" for n in LOST], "another wrong answer is no flip"
    first = values["flips"][0]
    assert (first["lost"], first["gained"]) == (["exact_match", "contains"], [])
    assert first["a"]["completion"] == answer(f"{rows_of(1)[0]['question']} 60") != first["b"]["completion"]
    assert (values["flip_count"], values["common"], values["in_order"], values["same_data"]) == (4, ROWS, True, True)
    lines = [json.loads(line) for line in (ram / "flips.jsonl").read_text().splitlines()]
    assert lines == values["flips"]
    back = said(b.root, a.root)[1]
    assert back["metrics"]["exact_match"]["difference"] == -metric["difference"]
    assert [flip["gained"] for flip in back["flips"]] == [["exact_match", "contains"]] * 4
    errors = len([n for n in range(ROWS) if n % 19 == 18])
    assert values["warnings"] == [
        f"{side} has {errors} samples that ended in an error: they count 0 in every metric" for side in "AB"
    ]


def test_the_same_for_people(a: RunPaths, b: RunPaths) -> None:
    done = hpcjobs("compare", a.root, b.root, "--limit", "1", "--gate", "exact_match=0.01", "--gate", "contains=0.5")
    lines = done.stdout.splitlines()
    assert done.returncode == 1, done.stderr
    assert lines[0] == f"A       complete, 60/60 samples, model dummy  {a.root}"
    assert lines[2] == "paired  60 samples by id"
    assert lines[3].startswith("exact_match      0.3167 -> 0.2500  -0.0667  95% [-0.1316, -0.0017]  bootstrap [-0.")
    assert lines[4] == f"{'':<16} 4 from 1 to 0, 0 from 0 to 1; McNemar (exact) p=0.125"
    assert "gate    exact_match: REGRESSION: B is lower by 0.0666667, more than 0.01" in lines
    assert "gate    contains: passed: B is lower by 0.0666667, not more than 0.5" in lines
    assert lines[-4] == "'row-0': exact_match 1 -> 0, contains 1 -> 0"
    assert lines[-3].startswith("  A: '")
    assert lines[-1].startswith("more samples have flipped: --limit")
    assert hpcjobs("compare", a.root, b.root, "--gate", "exact_match=0.0667").returncode == 0
    assert hpcjobs("compare", b.root, a.root, "--gate", "exact_match=0").returncode == 0
    whole = hpcjobs("compare", a.root, b.root, "--limit", "4").stdout
    assert "row-33" in whole
    assert "more samples" not in whole


def test_a_run_against_itself_has_no_difference(a: RunPaths) -> None:
    code, values = said(a.root, a.root, "--gate", "exact_match=0", "--gate", "contains=0")
    assert (code, values["flips"], values["warnings"][0]) == (0, [], "A and B are the same run")
    for metric in values["metrics"].values():
        assert [metric[name] for name in ("difference", "stderr", "ci95", "bootstrap_ci95")] == [0, 0, [0, 0], [0, 0]]
        assert metric["mcnemar"]["p_value"] == 1
    assert "no difference in any score" in hpcjobs("compare", a.root, a.root).stdout


def test_another_order_gives_the_same(a: RunPaths, b: RunPaths, ram: Path) -> None:
    rows = rows_of(ROWS)
    random.Random(1).shuffle(rows)
    mixed = run_of(ram / "mixed", rows, [*LOST, 5, 8])
    (_, straight), (code, joined) = said(a.root, b.root), said(a.root, mixed.root)
    assert (code, joined["in_order"], joined["common"], joined["other_inputs"]) == (0, False, ROWS, 0)
    assert joined["metrics"] == straight["metrics"]
    assert [flip["id"] for flip in joined["flips"]] == [flip["id"] for flip in straight["flips"]]
    assert [flip["b"]["completion"] for flip in joined["flips"]] == [
        flip["b"]["completion"] for flip in straight["flips"]
    ]
    assert "joined in memory" in hpcjobs("compare", a.root, mixed.root).stdout


def test_fewer_rows_and_other_inputs_are_said(a: RunPaths, ram: Path) -> None:
    rows = rows_of(ROWS)[:40]
    rows[3] = rows[3] | {"question": "another one"}
    code, values = said(a.root, run_of(ram / "few", rows).root, "--gate", "exact_match=1")
    assert (code, values["common"], values["only_a"], values["only_b"]) == (0, 40, 20, 0)
    assert (values["in_order"], values["same_data"], values["other_inputs"]) == (True, False, 1)
    told = "\n".join(values["warnings"])
    assert "20 samples are only in A and 0 only in B: they are left out" in told
    assert "the data sets are not the same" in told
    assert "1 of the common samples have another input in B" in told
    assert [flip["id"] for flip in values["flips"]] == ["row-3"]


def test_no_common_id_is_wrong_usage(a: RunPaths, ram: Path) -> None:
    other = run_of(ram / "other", [row | {"id": f"x-{row['id']}"} for row in rows_of(5)])
    done = hpcjobs("compare", a.root, other.root)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"no id is in both runs: {a.root} has 60 samples" in done.stderr
    done = hpcjobs("compare", finished(plan_run(ram / "empty", 0)).root, a.root)
    assert (done.returncode, done.stdout) == (2, "")


def test_an_incomplete_run_leaves_gates_undecided(a: RunPaths, b: RunPaths) -> None:
    cut(b, 3)
    code, values = said(a.root, b.root)
    assert (code, values["b"]["complete"], values["b"]["missing"], values["common"]) == (0, False, 3, ROWS - 3)
    assert f"B is incomplete, 57/60 samples; next: hpcjobs resume {b.root}" in values["warnings"]
    done = hpcjobs("compare", a.root, b.root, "--gate", "exact_match=0.9")
    assert done.returncode == 3
    assert f"B       INCOMPLETE, 57/60 samples, model dummy  {b.root}" in done.stdout
    assert "gate    exact_match: NOT DECIDED: incomplete: B; --allow-incomplete decides" in done.stdout
    for limit, code in (("0.9", 0), ("0", 1)):
        words = ("--gate", f"exact_match={limit}", "--allow-incomplete")
        assert hpcjobs("compare", a.root, b.root, *words).returncode == code
    cut(a, 7)
    pair = compare(Side.read(a), Side.read(b)).pairs
    assert pair.in_order, "of the same data, whatever either lacks"
    assert pair.common + pair.only_a == ROWS - 7


def test_what_is_not_merged_or_has_no_samples_is_told_with_the_next_command(a: RunPaths, ram: Path) -> None:
    planned = plan_run(ram / "planned", 3)
    for words in ((a.root, planned.root), (planned.root, a.root)):
        done = hpcjobs("compare", *words)
        assert done.returncode == 2
        assert f"results.parquet does not exist yet; next: hpcjobs merge {planned.root}" in done.stderr
    done = hpcjobs("compare", a.root, "nope")
    assert (done.returncode, "no run 'nope'" in done.stderr) == (2, True)
    bare = finished(plan_run(ram / "bare", 3, "generate"))
    done = hpcjobs("compare", a.root, bare.root)
    assert done.returncode == 2
    assert f"{a.root} has exact_match, contains; {bare.root} has none; next: hpcjobs score {bare.root}" in done.stderr
    script = ram / "script"
    command = [sys.executable, "-m", "hpcjobs", "submit", "script", "--plan-only", "--run-dir", str(script)]
    subprocess.run([*command, "--", "-m", "json.tool"], check=True, capture_output=True, env=clean_environment())
    assert hpcjobs("compare", script, a.root).returncode == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--gate", "exact_mach=0.01"], "did you mean 'exact_match'?"),
        (["--gate", "exact_match"], "write it as METRIC=NUMBER"),
        (["--gate", "exact_match=-1"], "0 or more"),
        (["--gate", "f1=0.1"], "both have: exact_match, contains"),
        (["--out", "nowhere/flips.jsonl"], "in a folder that does not exist"),
        (["--out", "{a}/results.parquet"], "is inside the run"),
        (["--out", "{a}/ranks/new.jsonl"], "is inside the run"),
        (["--out", "{a}"], "is a folder"),
        (["--limit", "-1"], "--limit"),
        (["--report", "x.html"], "--report is for two train runs"),
    ],
)
def test_wrong_usage_reads_and_writes_nothing(ram: Path, words: list[str], told: str) -> None:
    paths = run_of(ram / "a", rows_of(3))
    before = {path: path.read_bytes() for path in paths.root.rglob("*") if path.is_file()}
    done = hpcjobs("compare", paths.root, paths.root, *(word.format(a=paths.root) for word in words))
    assert (done.returncode, done.stdout) == (2, ""), done
    assert told in done.stderr
    assert {path: path.read_bytes() for path in paths.root.rglob("*") if path.is_file()} == before


def test_metrics_that_only_one_has_and_other_targets_are_said(a: RunPaths, b: RunPaths) -> None:
    assert hpcjobs("score", b.root, "--metric", "f1", "--metric", "contains").returncode == 0
    _, values = said(a.root, b.root)
    assert list(values["metrics"]) == ["contains"]
    assert any(f"next: hpcjobs score {a.root} --metric contains --metric f1" in line for line in values["warnings"])
    assert any(f"{b.root} has no exact_match" in line for line in values["warnings"])
    assert hpcjobs("score", b.root, "--metric", "contains", "--target", "x").returncode == 0
    assert "A was scored against the target '{{ gold }}', B against 'x'" in said(a.root, b.root)[1]["warnings"]


def test_a_broken_run_is_named(a: RunPaths, b: RunPaths) -> None:
    table = pq.read_table(b.results)
    pq.write_table(table.slice(0, 50), b.results)
    with pytest.raises(MergeError, match=r"results\.parquet has 50 rows, and metrics\.json counts 60; next: hpcjobs"):
        Side.read(b)
    b.results.write_bytes(b"")
    done = hpcjobs("compare", a.root, b.root)
    assert (done.returncode, "cannot be read" in done.stderr) == (1, True)
    for content in ("{", "{}", "[]", '{"provenance": {}}'):
        b.metrics.write_text(content)
        with pytest.raises(MergeError, match=r"metrics\.json is broken: .*; next: hpcjobs merge"):
            Side.read(b)
    b.metrics.unlink()
    with pytest.raises(UsageError, match=r"metrics\.json does not exist yet"):
        Side.read(b)


METRIC = """
class Odd:
    needs_target = False
    def score(self, completion, target, row):
        number = int(row["id"].removeprefix("row-"))
        return float("nan") if number == 4 else number / 10
"""


def test_a_metric_of_ones_own_with_what_is_no_number(ram: Path) -> None:
    """A NaN is stored as none: it is left out and said, and a gate does not pass by it."""
    (ram / "odd.py").write_text(METRIC)
    (ram / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of(10)))

    def shell(*words: str) -> subprocess.CompletedProcess[str]:
        command, env = [sys.executable, "-m", "hpcjobs", *words], clean_environment()
        return subprocess.run(command, cwd=ram, env=env, capture_output=True, text=True, timeout=DEADLINE, check=False)

    sets = ("model.engine=dummy", "task.prompt='{{ question }}'", "task.target='{{ gold }}'", "task.metrics=[odd:Odd]")
    flags = [word for each in sets for word in ("--set", each)]
    done = shell("submit", "eval", "--executor", "debug", "--data", "rows.jsonl", "--name", "x", *flags)
    assert done.returncode == 0, done.stderr
    told = json.loads(shell("compare", "x", "last", "--json").stdout)
    assert (told["metrics"]["Odd"]["n"], told["metrics"]["Odd"]["unscored"]) == (9, 1)
    assert (told["metrics"]["Odd"]["mcnemar"], told["flips"]) == (None, [])
    done = shell("compare", "x", "x", "--gate", "Odd=1")
    assert done.returncode == 3
    assert "NOT DECIDED: incomplete: Odd of some pairs" in done.stdout
    assert shell("compare", "x", "x", "--gate", "Odd=1", "--allow-incomplete").returncode == 0


def test_of_an_lm_eval_task_no_score_is_advised(ram: Path) -> None:
    a, b = (run_of(ram / name, rows_of(ROWS), metrics=metrics) for name, metrics in OTHER_METRICS.items())
    sides = Side.read(a), Side.read(b)
    assert not any(side.lm_eval for side in sides)
    flags = "--metric exact_match --metric contains"
    warnings = list(Findings(compare(*sides), [], None).warnings())
    assert warnings[-1] == f"{b.root} has no contains; next: hpcjobs score {b.root} {flags}"
    for number in (0, 1):
        mixed = [replace(side, lm_eval=n == number) for n, side in enumerate(sides)]
        assert list(Findings(compare(*mixed), [], None).warnings())[-1] == f"{b.root} has no contains"


def test_means_that_are_not_the_runs_own_value_are_called_so(ram: Path) -> None:
    rows = [{"id": str(n), "q": f"q{n}", "gold": answer(f"q{n}")[: 3 + n] + "x" * n} for n in range(6)]
    task: dict[str, Any] = {"metrics": ["exact_match", "chrf"], "prompt": "{{ q }}", "target": "{{ gold }}"}
    runs = [run_of(ram / name, rows, **task) for name in ("a", "b")]
    findings = find(runs[0], runs[1], [], False, None)
    lines = list(findings.lines())
    at = next(number for number, line in enumerate(lines) if line.startswith("chrf "))
    assert lines[at + 1].endswith("; means of the samples' scores, not the runs' chrf")
    assert sum("means of the samples" in line for line in lines) == 1, "exact_match is a mean"
    values: Any = findings.values()
    assert [values["metrics"][name]["of_samples"] for name in ("exact_match", "chrf")] == [False, True]
    assert values["metrics"]["chrf"]["a"] != read_json(runs[0].metrics)["metrics"]["chrf"]["value"]
