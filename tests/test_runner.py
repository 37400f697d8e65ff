"""The runner: the same saved results plain, and on several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import sacrebleu

from hpcjobs import runner
from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.errors import UsageError
from hpcjobs.launch.slurm import clean_environment
from hpcjobs.metrics import Judge
from hpcjobs.requests import Completion, SampleError
from hpcjobs.tasks.prompts import Prompts

RUN = ("-m", "hpcjobs.runner", "--data_file", "unified", "--max_samples", "100")


def _python(*words: str, code: int = 0) -> str:
    """python with `words`, as a user starts it; its output and errors."""
    env = clean_environment(os.environ) | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, *words], env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the plain runner saves."""
    folder: Path = tmp_path_factory.mktemp("plain")
    assert "exact_match" in _python(*RUN, "--output_dir", str(folder))
    return folder


def _same(one: Path, other: Path) -> None:
    for name in ("results.jsonl", "metrics.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


@pytest.mark.model
def test_plain_solves_its_data_and_keeps_the_order(plain: Path) -> None:
    rows = [json.loads(line) for line in (plain / "results.jsonl").read_text().splitlines()]
    assert [row["index"] for row in rows] == list(range(100))
    metrics = json.loads((plain / "metrics.json").read_text())["metrics"]
    assert metrics["exact_match"]["n"] == 100
    assert metrics["exact_match"]["value"] > 0.8


@pytest.mark.model
def test_accelerate_launch_as_its_users_type_it(plain: Path, tmp_path: Path) -> None:
    launch = ("-m", "accelerate.commands.launch", "--num_processes", "2", "--cpu")
    said = _python(*launch, *RUN, "--use_accelerate", "--output_dir", str(tmp_path / "out"))
    _same(plain, tmp_path / "out")
    assert "has started this one process" in said  # accelerate's launcher starts no second one on CPU, and we say so


@pytest.mark.model
def test_two_real_processes_save_the_same(plain: Path, tmp_path: Path) -> None:
    launch = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--rdzv_backend", "c10d")
    words = ("--main_process_port", "0", "--mixed_precision", "no", *RUN, "--use_accelerate", "--output_dir")
    said = _python(*launch, *words, str(tmp_path / "out"))
    _same(plain, tmp_path / "out")
    assert said.count("100 results, 0 errors") == 1  # only the main process saves and prints
    assert said.count("no GPU answers") == 1
    assert "has started this one process" not in said


@pytest.mark.model
def test_a_row_that_fails_is_saved_as_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(
        '{"question": "Spell: wecu", "answer": "w-e-c-u"}\n{"question": "' + "x" * 400 + '", "answer": "?"}\n'
    )
    words = ["--data_file", str(data), "--output_dir", str(tmp_path / "out")]
    assert runner.main(words) == 1
    assert "of 2 samples 1 have no completion; run.max_errors is 0.1" in capsys.readouterr().err
    assert runner.main([*words, "--set", "run.max_errors=1"]) == 0
    good, bad = (json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines())
    assert (good["completion"], good["error"]) == ("w-e-c-u", None)
    assert "no room" in bad["error"]["message"]
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["metrics"]["exact_match"]["value"] == 0.5


def test_bad_input_is_said_before_a_model_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(["--data_file", str(tmp_path / "none.jsonl")]) == 2
    assert "does not exist" in capsys.readouterr().err
    data = tmp_path / "data.jsonl"
    data.write_text('{"text": "a"}\n')
    assert runner.main(["--data_file", str(data)]) == 2
    assert "names column 'question'" in capsys.readouterr().err
    assert runner.main(["--set", "model.nam=x"]) == 2
    assert "did you mean 'name'" in capsys.readouterr().err


def test_load_validation_data_takes_the_first_rows() -> None:
    rows = runner.load_validation_data("canned_50_quick", 5)
    assert [row["index"] for row in rows] == [0, 1, 2, 3, 4]
    assert len(runner.load_validation_data("canned_50_quick")) == 50


def test_saved_values_are_made_by_the_metrics_own_folds(tmp_path: Path) -> None:
    answers, golds = ["a b c d e", "the cat sat", ""], ["a b c d x", "the cat sat on it", "gone"]
    rows = [{"index": n, "id": str(n), "question": "q", "gold": gold} for n, gold in enumerate(golds)]
    metrics = ["exact_match", "bleu", "chrf"]
    config = validate(Layer({"task": {"prompt": "{{ question }}", "target": "{{ gold }}", "metrics": metrics}}))
    judge, prompts = Judge(config.task), Prompts(config.task, list(rows[0]))
    failed = Completion.failed(2, SampleError("ValueError", "no room"))
    given = [Completion(index=n, text=text, finish_reason="stop") for n, text in enumerate(answers[:2])] + [failed]
    results = [runner._result(row, answer, prompts, judge) for row, answer in zip(rows, given, strict=True)]
    folder = runner.save_results(json.loads(json.dumps(results)), tmp_path, {"model": "m"}, judge.metrics)
    values = json.loads((folder / "metrics.json").read_text())
    assert values["metrics"]["bleu"]["value"] == sacrebleu.corpus_bleu(answers, [golds]).score
    assert values["metrics"]["chrf"]["value"] == sacrebleu.corpus_chrf(answers, [golds]).score
    assert (values["metrics"]["exact_match"]["value"], values["counts"]["errors"], values["model"]) == (0, 1, "m")
    alone = runner.save_results([{"scores": {"own": 0.5}, "error": None}], tmp_path / "own")
    assert json.loads((alone / "metrics.json").read_text())["metrics"]["own"]["value"] == 0.5


def test_multiple_choice_with_examples_plain_and_with_the_connector(tiny: tuple[Any, Any]) -> None:
    """The same rows and scores; what a rank of a run folder gives is tested elsewhere."""
    from hpcjobs.connector import AccelerateConnector
    from hpcjobs.runner import run_inference_with_accelerate, run_inference_with_prompt

    rows: list[dict[str, Any]] = [
        {"index": n, "id": f"r{n}", "q": f"Upper: {'abc'[: n % 3 + 1]}", "options": ["ABC", "AB", "A"], "gold": n % 3}
        for n in range(9)
    ]
    task = {
        "type": "choice", "prompt": "{{ q }}", "choices": "{{ options }}", "target": "{{ gold }}",
        "few_shot": {"k": 1}, "metrics": ["acc"],
    }  # fmt: skip
    config = validate(Layer({"model": {"name": "tiny"}, "task": task}))
    plain = run_inference_with_prompt(*tiny, rows, config)
    other = run_inference_with_accelerate(AccelerateConnector("tiny", batch_size=2), rows, config)
    assert [row["finish_reason"] for row in plain] == ["scored"] * 9
    assert {row["completion"] for row in plain} <= {"ABC", "AB", "A"}
    kept = ("id", "completion", "scores", "prompt_tokens", "completion_tokens")
    assert [[dict(row)[key] for key in kept] for row in other] == [[dict(row)[key] for key in kept] for row in plain]
    assert plain[0]["prompt_tokens"] > len(rows[0]["q"]) + len(rows[1]["q"])  # an example stands before it


def test_examples_are_the_rows_as_they_are() -> None:
    """Not as a table would have them: with the keys of other rows, or one type for a column."""
    rows: list[dict[str, Any]] = [
        {"index": n, "id": str(n), "a": value} for n, value in enumerate([{"x": 1}, {"y": [2.5]}, 12, 2**70, "t"])
    ]
    config = validate(Layer({"task": {"prompt": "{{ a }}", "target": "{{ id }}", "few_shot": {"k": 4}}}))
    pool = runner._pool(config, rows)
    assert pool is not None
    shown = pool.examples(rows[4], "4", ["a"])
    assert [(type(row["a"]), row["a"]) for row in shown] == [(type(row["a"]), row["a"]) for row in rows[:4]]


def test_rows_of_any_kind_have_their_numbers() -> None:
    columns: dict[str, Any] = {"question": ["a", "b"], "id": ["x", 7]}
    rows: list[dict[str, Any]] = [{"question": "a", "index": 0, "id": "x"}, {"question": "b", "index": 1, "id": "7"}]
    plain = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    for data in (plain, iter(plain), columns, pd.DataFrame(columns), rows):
        assert runner.checked_rows(data) == rows
    assert runner.checked_rows(pa.table({"question": ["a", "b"]}))[1] == {"question": "b", "index": 1, "id": "1"}
    assert runner.checked_rows([]) == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("rows.jsonl", "cannot split a str"), (None, "cannot split a NoneType"), (["a"], "row 0 of the data set is"),
        ([{"index": 1}, {"index": 1}], "index 1 of row 1 is that of row 0 too: rename the column"),
        ([{"index": "q"}], "index 'q' of row 0 is no whole number"),
    ],
)  # fmt: skip
def test_what_has_no_rows_is_refused(data: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        runner.checked_rows(data)
