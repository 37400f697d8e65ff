"""A model that was stored wrong is no result: the run is not complete, and its checkpoint makes the model again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.assets import ASSETS
from hpcjobs.merge.train import merge_train
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.heartbeat import read_heartbeat
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.training.outcome import read_training
from tests.runs import rank_env
from tests.trainings import TrainingRanks, curve_of, plan_training, run_training

pytestmark = pytest.mark.model
UP = "model.layers.1.mlp.up_proj.weight"
# A library that writes one number of the tensor that the second word names wrong.
BROKEN = """
import sys, safetensors.torch, transformers.modeling_utils
def wrong(tensors, file, metadata=None, save=safetensors.torch.save_file):
    held = dict(tensors)
    held[sys.argv[2]] = held[sys.argv[2]].clone()
    held[sys.argv[2]].view(-1)[-1] += 1
    save(held, file, metadata=metadata)
transformers.modeling_utils.safe_save_file = wrong
from hpcjobs.worker.__main__ import main
sys.exit(main(sys.argv[1:2]))
"""


def test_a_model_that_was_stored_wrong_is_not_there(tmp_path: Path) -> None:
    paths = plan_training(tmp_path / "run", init="pretrained", max_steps=2, checkpoint_every=2)
    env = os.environ | rank_env(0, 1, "a") | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", BROKEN, str(paths.root), UP], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    heartbeat = read_heartbeat(paths.heartbeat("a", 0))
    assert heartbeat is not None
    assert f"{UP} in model.safetensors has other values" in (heartbeat.first_error or "")
    assert f"hpcjobs resume {paths.root}" in (heartbeat.first_error or "")
    assert not paths.model.exists()
    assert not list(paths.root.glob(".*.tmp"))
    assert not read_training(paths).merged.complete
    _stored_again(paths)


def _stored_again(paths: RunPaths) -> None:
    """A later start trains no step again, and is complete."""
    run_training(paths, 1, "b")
    assert {record.attempt for record in curve_of(paths)} == {"a"}
    merge_train(paths)
    assert read_json(paths.metrics)["complete"] is True


def test_adapters_are_merged_into_the_base_that_was_planned_alone(tmp_path: Path) -> None:
    """A base whose files are changed during the training, or before it goes on, is not the one that was adapted."""
    base = tmp_path / "base"
    shutil.copytree(ASSETS / "tiny", base)
    how: dict[str, Any] = {"init": "pretrained", "lora": {"rank": 2}, "max_steps": 12, "checkpoint_every": 5}
    paths = plan_training(tmp_path / "run", model=str(base), **how)
    with TrainingRanks(paths, 1) as ranks:
        ranks.wait_for_step(1)
        whole = (base / "model.safetensors").read_bytes()
        (base / "new").write_bytes(whole[:9000] + whole[9400:9800] + whole[9000:9400] + whole[9800:])
        (base / "new").rename(base / "model.safetensors")  # the rank has the old one mapped into its memory
        assert ranks.finish() == [1]
    with TrainingRanks(paths, 1, "b") as ranks:
        assert ranks.finish() == [1]
    for attempt in "ab":
        heartbeat = read_heartbeat(paths.heartbeat(attempt, 0))
        assert heartbeat is not None
        assert f"{base}/model.safetensors: planned sha256" in (heartbeat.first_error or "")
    assert not paths.model.exists()
    shutil.rmtree(base)
    shutil.copytree(ASSETS / "tiny", base)
    run_training(paths, 1, "c")
    assert {record.attempt for record in curve_of(paths)} == {"a"}
    assert paths.model.exists()
