"""Checkpoints of a sharded training are those of any other: they go on sharded otherwise, or not at all."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from hpcjobs.run_folder.paths import RunPaths
from tests.trainings import TrainingRanks, curve_of, logs_of, plan_training, run_training, samples_by_step

pytestmark = pytest.mark.model
KINDS: dict[str, dict[str, Any]] = {
    "full": {"init": "random"},
    "lora": {"init": "pretrained", "lora": {"rank": 4}, "learning_rate": 0.01},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_sharded_training_goes_on_alone_and_on_more_ranks(tmp_path: Path, kind: str) -> None:
    """Two ranks, then one without shards, then three: as one rank does it all."""
    calm = plan_training(tmp_path / "calm", **KINDS[kind])
    run_training(calm, 1)
    paths = plan_training(tmp_path / "run", 2, **KINDS[kind], fsdp={"enabled": True})
    stopped(paths, 2, "a", 2)
    names = load_file(newest(paths) / "weights.safetensors").keys()
    assert names == load_file(calm.checkpoint(8) / "weights.safetensors").keys(), "a tied weight is there twice"
    stopped(paths, 1, "b", 4)
    run_training(paths, 3, "c")
    assert [record.world_size for record in curve_of(paths)][::7] == [2, 3]
    assert 1 in {record.world_size for record in curve_of(paths)}
    assert [r.loss for r in curve_of(paths)] == pytest.approx([r.loss for r in curve_of(calm)], abs=1e-4)
    assert samples_by_step(paths) == samples_by_step(calm)


def stopped(paths: RunPaths, world: int, attempt: str, step: int) -> None:
    """A start that is told to end after `step`."""
    with TrainingRanks(paths, world, attempt) as ranks:
        ranks.wait_for_step(step)
        ranks.signal(0, signal.SIGTERM)
        assert ranks.finish() == [0] * world, logs_of(paths)


def newest(paths: RunPaths) -> Path:
    return max(paths.checkpoints.glob("step-*"))
