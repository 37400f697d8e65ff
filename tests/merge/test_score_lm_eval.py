"""score on a run of an lm_eval task: its code as it is now judges the answers that are there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from hpcjobs.errors import ConfigError, UsageError
from hpcjobs.merge.score import rescore
from tests.lmeval_tasks import alone, dummy_lm
from tests.tasks.lmeval.test_run import planned, run_through


@pytest.mark.parametrize("name", ["pick", "vote", "read"])
def test_the_same_code_gives_the_same_again(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")
    paths = planned(tmp_path, name)
    run_through(paths)
    table, before = pq.read_table(paths.results), json.loads(paths.metrics.read_text())
    shutil.rmtree(tmp_path / "tasks")
    after = rescore(paths, [], None)
    assert pq.read_table(paths.results).equals(table)
    assert (after["metrics"], after["warnings"]) == (before["metrics"], before["warnings"])
    assert after["provenance"]["rescored_with"]["code"] == str(paths.code / "lm_eval_task")


def test_mended_code_scores_every_answer_without_the_model(tmp_path: Path) -> None:
    paths = planned(tmp_path, "part")
    run_through(paths)
    code = tmp_path / "tasks" / "utils.py"
    code.write_text(code.read_text().replace("raise KeyError", "print"))
    theirs = alone(dummy_lm(), "part", tmp_path / "tasks", bootstrap_iters=0)["results"]["part"]
    after = rescore(paths, [], None)
    for name in ("first,none", "pairs,none"):
        assert (after["metrics"][name]["value"], after["metrics"][name]["n"]) == (theirs[name], 30)
    assert (after["counts"]["errors"], after["warnings"]) == (0, [])
    assert pq.read_table(paths.results).column("error").null_count == 30
    assert list(rescore(paths, ["pairs,none"], None)["metrics"]) == ["pairs,none"]


def test_what_the_task_does_not_have_is_refused(tmp_path: Path) -> None:
    paths = planned(tmp_path, "part")
    run_through(paths, 1)
    with pytest.raises(ConfigError, match=r"no such metric.*; it has first,none, pairs,none"):
        rescore(paths, ["first"], None)
    with pytest.raises(UsageError, match="leave --target out"):
        rescore(paths, [], "{{ word }}")
