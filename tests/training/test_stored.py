"""A model that was stored wrong is no result: the run is not complete, and its checkpoint makes the model again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcjobs.merge.train import merge_train
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.heartbeat import read_heartbeat
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.training.outcome import read_training
from tests.runs import rank_env
from tests.trainings import curve_of, plan_training, run_training

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
