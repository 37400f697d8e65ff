"""The model of the lowest validation loss: kept, given away, and the same after a kill."""

from __future__ import annotations

import json
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.cli.show_run import metrics_text
from hpcjobs.errors import ConfigError
from hpcjobs.merge.train import merge_train
from hpcjobs.run_folder.metrics_file import MetricsFile
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.training.checkpoints.checkpoint import MANIFEST, Checkpoints
from hpcjobs.training.data.tokens import TokenFile
from hpcjobs.training.steps import read_curve
from tests.trainings import TrainingRanks, bits, curve_of, plan_training, run_training, weights_hash

pytestmark = pytest.mark.model
STEPS = 12
_DRAW = random.Random(0)
# Answers that nobody could know: the training rows are learned by heart, and the validation loss rises again.
ROWS = [{"question": f"Say {n}", "answer": str(_DRAW.randrange(10**6))} for n in range(40)]
FAST: dict[str, Any] = {
    "max_steps": STEPS, "learning_rate": 0.005, "scheduler": "constant", "global_batch": 8, "micro_batch": 8,
    "validation_fraction": 0.3, "eval_every": 2, "checkpoint_every": 5, "keep": 1, "export": "best",
}  # fmt: skip


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    paths = plan_training(tmp_path_factory.mktemp("calm") / "run", rows=ROWS, **FAST)
    run_training(paths, 1)
    return paths


def loss_of(paths: RunPaths) -> float:
    """The validation loss of model/, by hand: each row alone."""
    import torch
    from transformers import AutoModelForCausalLM

    model, tokens = AutoModelForCausalLM.from_pretrained(paths.model).eval(), TokenFile(paths.validation_tokens)
    total = 0.0
    for number in range(len(tokens)):
        ids, learned = (torch.tensor(values) for values in tokens.sample(number))
        with torch.no_grad():
            losses = torch.nn.functional.cross_entropy(
                model(ids[None]).logits[0, :-1], ids[1:].long(), reduction="none"
            )
        total += float(losses[learned[1:]].sum())
    return total / int(tokens.targets.sum())


def test_the_model_is_that_of_the_lowest_validation_loss(calm: RunPaths) -> None:
    losses = {record.step: record.eval_loss for record in curve_of(calm) if record.eval_loss is not None}
    best = min(losses, key=losses.__getitem__)
    assert best < STEPS
    assert losses[best] < losses[STEPS] * 0.99
    assert loss_of(calm) == pytest.approx(losses[best], rel=1e-5)
    assert Checkpoints(calm, 1).steps() == [STEPS, best], "the newest, and the best"
    assert json.loads((calm.checkpoint(best) / MANIFEST).read_text())["eval_loss"] == losses[best]


def test_all_say_of_which_step_it_is(calm: RunPaths) -> None:
    assert merge_train(calm).complete
    best, metrics = read_curve(calm).best, MetricsFile.read(calm.metrics)
    assert best
    assert metrics.train
    assert metrics.train.model_step == best.step
    assert f"{calm.model}, of step {best.step}" in metrics_text(metrics)
    card = (calm.model / "README.md").read_text()
    assert f"of step {best.step}, of the lowest validation loss" in card
    assert f"| validation loss | {best.eval_loss:.4f} |" in card


def test_a_kill_after_the_best_step_changes_nothing(calm: RunPaths, tmp_path: Path) -> None:
    """The next start goes on after a later checkpoint than the best one."""
    best = read_curve(calm).best
    assert best
    paths = plan_training(tmp_path / "run", rows=ROWS, **FAST)
    with TrainingRanks(paths, 1) as ranks:
        ranks.wait_for_step(STEPS - 1)
        assert Checkpoints(paths, 1).steps()[0] > best.step
        ranks.signal(0, signal.SIGKILL)
        assert ranks.finish() != [0]
    run_training(paths, 1, "b")
    assert bits(curve_of(paths)) == bits(curve_of(calm))
    assert weights_hash(paths) == weights_hash(calm)
    assert Checkpoints(paths, 1).steps() == Checkpoints(calm, 1).steps()


def test_a_best_checkpoint_that_is_not_whole_is_not_given_away(calm: RunPaths, tmp_path: Path) -> None:
    best = read_curve(calm).best
    assert best
    paths = RunPaths(tmp_path / "run")
    shutil.copytree(calm.root, paths.root)
    shutil.rmtree(paths.model)
    (paths.checkpoint(best.step) / "weights.safetensors").write_bytes(b"no weights")
    with TrainingRanks(paths, 1, "b") as ranks:
        assert ranks.finish() != [0]
    said = "\n".join(path.read_text() for path in paths.logs.glob("*.log"))
    assert "is not whole, and model/ is not written: weights.safetensors has 10 bytes" in said
    assert not paths.model.exists()


@pytest.mark.parametrize("train", [{"export": "best"}, {"keep_best": True, "eval_every": 4}, {"keep_best": True}])
def test_what_has_no_best_is_refused(tmp_path: Path, train: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"goes by the validation loss: set train\.eval_every, and"):
        plan_training(tmp_path / "run", **train)
