"""hpcjobs in Python: what `submit`, `Run` and `runs` give is what the verbs give."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import Dataset

import hpcjobs
from hpcjobs.errors import ConfigError, HpcJobsError, UsageError
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.run_state import RunState
from tests.runs import MIXED, answer

ROWS = 12


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rows of mixed JSON values, of which each third is answered right."""
    monkeypatch.setenv("HPCJOBS_RUNS", str(tmp_path / "runs"))
    path = tmp_path / "rows.jsonl"
    gold = [answer(f"q{n}") if n % 3 == 0 else "no" for n in range(ROWS)]
    rows = [{"id": f"r{n}", "question": f"q{n}", "gold": gold[n], "mixed": MIXED[n % len(MIXED)]} for n in range(ROWS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config_of(data: Path, **model: Any) -> dict[str, dict[str, Any]]:
    return {
        "model": {"engine": "dummy"} | model,
        "data": {"name": str(data)},
        "task": {"prompt": "{{ question }}", "target": "{{ gold }}", "metrics": ["exact_match", "f1"]},
        "run": {"heartbeat": 0.2},
        "cluster": {"executor": "local", "ntasks_per_node": 2},
    }


def test_a_run_from_submit_to_its_samples(data: Path) -> None:
    run = hpcjobs.submit(config_of(data), name="first", sets={"run.seed": 7})
    status = run.wait(timeout=120)
    assert (status.state, status.done, status.rows) == (RunState.COMPLETE, ROWS, ROWS)
    assert read_json(run.folder / "plan.json")["rows"] == ROWS
    assert "seed: 7" in (run.folder / "config.yaml").read_text()
    assert run.metrics["exact_match"]["value"] == pytest.approx(4 / 12)
    assert run.metrics == read_json(run.folder / "metrics.json")["metrics"]
    table, file = run.results(), pq.read_table(run.folder / "results.parquet").to_pylist()
    assert isinstance(table, Dataset)
    assert table["completion"][:] == [row["completion"] for row in file] == [answer(f"q{n}") for n in range(ROWS)]
    assert table["score_f1"][:] == [row["scores"]["f1"] for row in file]
    assert table["input_question"][:] == [f"q{n}" for n in range(ROWS)]
    assert [json.loads(text or "null") for text in table["input_mixed"]] == [MIXED[n % len(MIXED)] for n in range(ROWS)]
    samples = list(run.samples())
    assert [sample["input_mixed"] for sample in samples] == [MIXED[n % len(MIXED)] for n in range(ROWS)]
    assert [set(sample) for sample in samples] == [set(table.column_names)] * ROWS
    assert run.resume() is False, "nothing is missing"
    assert run.score("contains").metrics["contains"]["value"] == pytest.approx(4 / 12)
    assert list(hpcjobs.Run("last").metrics) == ["contains"]
    assert hpcjobs.runs() == [run] == [hpcjobs.Run("first")] == [hpcjobs.Run(run.folder)]
    assert eval(repr(run), {"Run": hpcjobs.Run}) == run
    assert run.report.read_text().startswith("<!doctype html>")


def test_a_run_that_is_waited_for_too_short_is_cancelled_and_resumed(data: Path) -> None:
    run = hpcjobs.submit(config_of(data, dummy_delay=0.5), name="slow", ntasks_per_node=1)
    with pytest.raises(UsageError, match="slow has no metrics yet"):
        run.metrics  # noqa: B018
    with pytest.raises(UsageError, match="slow has no results yet"):
        run.results()
    with pytest.raises(TimeoutError, match=f"slow is (pending|running|starting) after 0.1 s: 0 of {ROWS}"):
        run.wait(timeout=0.1)
    with pytest.raises(UsageError, match="still going"):
        run.resume()
    assert run.cancel()
    status = run.wait(timeout=60)
    assert status.state != RunState.COMPLETE
    assert run.merge().counts.missing > 0
    assert run.resume(ntasks_per_node=3) is True
    assert run.wait(timeout=120).state == RunState.COMPLETE
    assert [sample["completion"] for sample in run.samples()] == [answer(f"q{n}") for n in range(ROWS)]


def test_a_file_is_read_as_the_command_reads_it_and_debug_is_over_on_return(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(json.dumps(config_of(data)))
    run = hpcjobs.submit(file, run_dir=tmp_path / "here", executor="debug", ntasks_per_node=1, max_samples=3)
    assert (run.folder, run.status().state) == (tmp_path / "here", RunState.COMPLETE)
    assert len(run.results()) == 3


def test_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPCJOBS_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prog.py").write_text("import sys\nopen('said', 'w').write(sys.argv[1])\n")
    run = hpcjobs.submit(job="script", argv=["prog.py", 12], executor="local", nodes=1, ntasks_per_node=1, gpus=0)
    assert run.wait(timeout=60).state == RunState.COMPLETE
    assert (tmp_path / "said").read_text() == "12"
    with pytest.raises(UsageError, match="it has no samples to read"):
        run.results()
    with pytest.raises(UsageError, match="is a script run"):
        run.metrics  # noqa: B018


def test_wrong_values_are_named_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    config = config_of(data)
    with pytest.raises(ConfigError, match=r"sets: unknown key 'run\.sed' \(did you mean"):
        hpcjobs.submit(config, sets={"run.sed": 1})
    with pytest.raises(ConfigError, match="unknown key 'modell'"):
        hpcjobs.submit(config | {"modell": {}})
    with pytest.raises(ConfigError, match="nodes"):
        hpcjobs.submit(config, nodes=0)
    with pytest.raises(UsageError, match=r"no argument 'node' \(did you mean 'nodes'"):
        hpcjobs.submit(config, node=2)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match=r"argv is a list of words, such as \['echo', 'hi'\]$"):
        hpcjobs.submit(job="script", argv="echo hi", executor="local")
    with pytest.raises(UsageError, match="sets is a mapping"):
        hpcjobs.submit(config, sets=["run.seed=1"])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="sbatch is a mapping"):
        hpcjobs.submit(config, sbatch=["--comment=x"])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a YAML file or a mapping of its sections, not a int"):
        hpcjobs.submit(3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="nope is no folder of runs"):
        hpcjobs.runs(tmp_path / "nope")
    with pytest.raises(UsageError, match="no run 'aaa"):
        hpcjobs.Run("a" * 5000)
    with pytest.raises(ConfigError, match="does not exist"):
        hpcjobs.submit(tmp_path / "no.yaml")
    with pytest.raises(UsageError, match="no run 'other'"):
        hpcjobs.Run("other")
    assert hpcjobs.runs() == []
    assert not (tmp_path / "runs").exists()


def test_a_notebook_shows_state_and_metrics_and_no_markup_of_others(data: Path) -> None:
    run = hpcjobs.submit(config_of(data), name="bad", executor="debug", ntasks_per_node=1, sets={"task.target": "x"})
    with pytest.raises(UsageError, match="no argument 'metric'; there are nodes"):
        run.resume(metric=["f1"])
    shown = run._repr_html_()
    assert "<tr><th>state</th><td>complete</td></tr>" in shown
    assert "<th>exact_match</th><td>0 [0, " in shown
    (run.folder / "plan.json").write_text('{"<script>')
    assert "<script" not in run._repr_html_()


def test_damaged_files_are_named(data: Path) -> None:
    run = hpcjobs.submit(config_of(data), name="hurt", executor="debug", ntasks_per_node=1)
    table = (run.folder / "results.parquet").read_bytes()
    (run.folder / "results.parquet").write_bytes(table[:500])
    for read in (run.results, lambda: list(run.samples())):
        with pytest.raises(HpcJobsError, match=r"results\.parquet cannot be read: .*; next: hpcjobs merge"):
            read()
    (run.folder / "metrics.json").write_text("{")
    with pytest.raises(HpcJobsError, match=r"metrics\.json cannot be read"):
        run.metrics  # noqa: B018


def test_debug_runs_in_a_thread_too(data: Path) -> None:
    found: list[hpcjobs.Run] = []

    def submit() -> None:
        found.append(hpcjobs.submit(config_of(data), name="thread", executor="debug", ntasks_per_node=1))

    thread = threading.Thread(target=submit)
    thread.start()
    thread.join()
    assert found[0].status().state == RunState.COMPLETE
