"""The merge of a training: a step counts once, what is missing is said, and nothing is complete before its model is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.cli.show_run import metrics_text
from hpcjobs.commands.status import read_status
from hpcjobs.errors import MergeError
from hpcjobs.merge.train import merge_train
from hpcjobs.report import write_report
from hpcjobs.run_folder.files import write_json
from hpcjobs.run_folder.metrics_file import MetricsFile
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.training.checkpoints.checkpoint import MANIFEST
from hpcjobs.training.data.tokens import TokenCount, TokenFacts
from hpcjobs.training.progress import read_progress
from hpcjobs.training.steps import StepRecord, read_curve
from tests.trainings import journal, plan_training, record


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    """A planned training of eight steps, tokenised, with nothing done."""
    planned = plan_training(tmp_path / "run", 2)
    count = TokenCount(samples=60, tokens=1000, learned=300, left_out=2, reasons=["row 3 (id 3): why"])
    TokenFacts(train=count, validation=None, steps=8, units=60, longest=64).write(planned.token_facts)
    return planned


def values_of(paths: RunPaths) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(paths.metrics.read_text())
    return values


def test_a_whole_training(paths: RunPaths) -> None:
    journal(paths, [record(step) for step in range(1, 9)])
    journal(paths, [record(step, rank=1) for step in range(1, 9)])
    paths.model.mkdir()
    paths.checkpoint(8).mkdir(parents=True)
    write_json(paths.checkpoint(8) / MANIFEST, {"files": {"a": {"size": 5}, "b": {"size": 7}}})
    merged = merge_train(paths)
    assert (merged.complete, merged.rows, merged.accepted) == (True, 8, 8)
    values = values_of(paths)
    assert values["counts"] == {"rows": 8, "accepted": 8, "missing": 0, "errors": 0, "tokens": 800}
    assert values["metrics"]["loss"] == {"value": 1 / 8, "n": 8, "ci95": None, "stderr": None, "step": 8}
    assert (values["metrics"]["eval_loss"]["value"], values["metrics"]["best_eval_loss"]["step"]) == (0.25, 8)
    train = values["train"]
    assert (train["tokens_per_s"], train["tokens_per_s_per_rank"]) == (200.0, 100.0)
    assert train["checkpoints"] == [{"step": 8, "bytes": 12}]
    assert values["warnings"] == ["2 rows were left out, with nothing to learn: row 3 (id 3): why; and 1 more"]
    assert (train["model"], train["adapter"]) == (str(paths.model), None)
    paths.adapter.mkdir()
    again = values_of(paths)
    merge_train(paths)
    assert values_of(paths)["train"]["adapter"] == str(paths.adapter)
    assert f"\nadapter {paths.adapter}" in metrics_text(MetricsFile.read(paths.metrics))
    assert values_of(paths)["metrics"] == again["metrics"]


def test_steps_without_a_model_are_not_complete(paths: RunPaths) -> None:
    journal(paths, [record(step) for step in range(1, 9)])
    assert not merge_train(paths).complete
    assert "all steps are done, and model/ is not written" in values_of(paths)["warnings"]


def test_a_step_that_was_run_again_counts_once_and_the_last_time(paths: RunPaths) -> None:
    journal(paths, [record(step) for step in range(1, 6)])
    journal(paths, [record(step, "b", loss=5.0 + step) for step in range(4, 8)])
    merged = merge_train(paths)
    assert merged.missing == [8]
    values = values_of(paths)
    assert values["train"]["steps_run_again"] == 2
    assert [read_curve(paths).steps[step].loss for step in (3, 4, 5)] == [1 / 3, 9.0, 10.0]
    assert values["warnings"][0] == "1 of 8 steps have no record, the first is step 8"


def test_more_steps_that_stand_are_kept_and_what_a_killed_merge_left_is_removed(paths: RunPaths) -> None:
    old = paths.root / ".metrics.json.0123456789ab-1-1.abcdef.tmp"
    old.touch()
    os.utime(old, (1, 1))
    journal(paths, [record(step) for step in range(1, 7)])
    assert (merge_train(paths).kept, old.exists()) == ("", False)
    before = paths.metrics.read_bytes()
    paths.journal("a", 0).write_bytes(b"".join(record(step).line() for step in range(1, 5)))
    assert merge_train(paths).kept.startswith("4 of 8 are there now, fewer than the 6 of the table that stands")
    assert paths.metrics.read_bytes() == before


def test_a_resume_at_another_world_size_counts_each_step_by_its_own_ranks(paths: RunPaths) -> None:
    journal(paths, [record(step) for step in range(1, 5)])
    journal(paths, [record(step, "b", world_size=4) for step in range(5, 9)])
    merge_train(paths)
    train = values_of(paths)["train"]
    assert (train["tokens_per_s"], train["tokens_per_s_per_rank"]) == (200.0, 66.67)


def test_nothing_done_is_no_metric(paths: RunPaths) -> None:
    merged = merge_train(paths)
    assert (merged.complete, merged.accepted, values_of(paths)["metrics"]) == (False, 0, {})
    write_report(paths)
    assert "there is no curve" in paths.report.read_text()


def test_a_torn_tail_is_dropped_and_a_broken_line_is_an_error(paths: RunPaths) -> None:
    path = paths.journal("a", 0)
    path.write_bytes(record(1).line() + record(2).line()[:-20])
    assert list(read_curve(paths).steps) == [1]
    path.write_bytes(b'{"step": 1}\n' + record(2).line())
    with pytest.raises(MergeError, match=r"a-0\.jsonl: broken record at offset 0: .*; .*: hpcjobs resume "):
        merge_train(paths)


def test_a_loss_that_is_no_number_is_null_in_its_line() -> None:
    assert b'"grad_norm": null' in record(1, grad_norm=float("nan")).line()
    assert StepRecord.parse(record(3).line()) == record(3)


def test_progress_reads_the_end_of_the_newest_journal(paths: RunPaths) -> None:
    assert (read_progress(paths).steps, read_progress(paths).done, read_progress(paths).last) == (8, 0, None)
    assert read_status(paths).notes == ["2 rows were left out, with nothing to learn: row 3 (id 3): why; and 1 more"]
    journal(paths, [record(step, samples=list(range(30_000))) for step in range(1, 6)])
    progress = read_progress(paths)
    assert (progress.done, progress.rate) == (5, 2.0)
    journal(paths, [record(step, "b") for step in range(3, 5)])
    assert read_progress(paths).done == 4


def test_the_report_draws_the_curve_and_where_it_was_started_again(paths: RunPaths) -> None:
    journal(paths, [record(step) for step in range(1, 6)])
    journal(paths, [record(step, "b") for step in range(5, 9)])
    paths.model.mkdir()
    merge_train(paths)
    write_report(paths)
    page = paths.report.read_text()
    assert "loss 1 at step 1, 0.125 at step 8; validation loss 0.25 after step 8." in page
    assert "step 5: start b, 2 ranks" in page
    assert "validation loss 0.5000 after step 4" in page
    assert "COMPLETE" in page
