"""The model that ships with the package can be made anew, by the config that says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcjobs.run_folder.paths import RunPaths
from tests.commands.test_submit_train import evals_done, hpcjobs
from tests.runs import cancelled_at_end, wait_for

CONFIG = Path(__file__).parents[2] / "configs" / "train_tiny.yaml"
# The config has 1,600, after which nothing is wrong any more: half of them are enough for a good model.
STEPS = 800


@pytest.mark.model
def test_the_tiny_model_is_made_from_random_weights_by_its_config(tmp_path: Path) -> None:
    """Two ranks train it, the eval that follows finds more than four of five answers right."""
    paths = RunPaths(tmp_path / "tiny")
    words: list[str | Path] = ["--config", CONFIG, "--set", f"train.max_steps={STEPS}", "--run-dir", paths.root]
    said = hpcjobs("submit", "train", *words, "--executor", "local", "--ntasks-per-node", "2", "--yes")
    assert "drills: 48000 rows" in said
    with cancelled_at_end(paths), cancelled_at_end(RunPaths(paths.eval_of())):
        [final] = wait_for(lambda: evals_done(paths.root, 1), "the model and its eval", 900)
    assert final["metrics"]["exact_match"] > 0.8
    counts = json.loads((paths.eval_of() / "metrics.json").read_text())["counts"]
    assert counts["accepted"] == counts["rows"] == 50
