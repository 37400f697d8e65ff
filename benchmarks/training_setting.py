"""TrainSetting: what a training trial runs, and what an undisturbed run of it comes to."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcjobs.merge.train import merge_train
from hpcjobs.run_folder.files import sha256_of
from hpcjobs.run_folder.paths import RunPaths
from tests.runs import MEMORY
from tests.trainings import bits, curve_of, plan_training, run_training, samples_by_step

# How far losses of other numbers of ranks may be apart: sums in another order, over all steps.
_NEAR = 1e-4


@dataclass(frozen=True)
class TrainSetting:
    """A training of the tiny model with a kind of its own; times in seconds."""

    kind: str
    ranks: int
    steps: int = 16
    heartbeat: float = 0.2
    lease_timeout: float = 3.0

    @property
    def keys(self) -> Mapping[str, Any]:
        """The keys of the section `train`."""
        own: dict[str, dict[str, Any]] = {
            "plain": {}, "async": {"async_checkpoints": True, "checkpoint_every": 2},
            "fsdp": {"fsdp": {"enabled": True}},
            "lora": {"init": "pretrained", "lora": {"rank": 4}}, "best": {"keep_best": True, "keep": 1},
        }  # fmt: skip
        common = {"max_steps": self.steps, "validation_fraction": 0.1, "eval_every": 4}
        return common | own[self.kind]

    def plan(self, folder: Path) -> RunPaths:
        """A planned run in `folder`."""
        paths = plan_training(folder, self.ranks, **self.keys)
        text = paths.config.read_text()
        for name, value in {"lease_timeout: 20.0": self.lease_timeout, "rendezvous_timeout: 120.0": 20.0}.items():
            assert name in text
            text = text.replace(name, f"{name.partition(':')[0]}: {value}")
        paths.config.write_text(text)
        return paths


SETTINGS = (
    TrainSetting("plain", 1), TrainSetting("plain", 2), TrainSetting("async", 2), TrainSetting("fsdp", 2),
    TrainSetting("lora", 2), TrainSetting("best", 3),
)  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """What a run came to."""

    bits: list[tuple[Any, ...]]
    samples: dict[int, list[int]]
    weights: dict[str, str]
    losses: list[float]

    @classmethod
    def of(cls, paths: RunPaths) -> Trained:
        files = [*paths.model.glob("*.safetensors"), *paths.adapter.glob("*.safetensors")]
        weights = {f"{one.parent.name}/{one.name}": sha256_of(one) for one in files}
        curve = curve_of(paths)
        return cls(bits(curve), samples_by_step(paths), weights, [one.loss for one in curve])


@functools.cache
def expected(setting: TrainSetting) -> Trained:
    """What nothing happened to."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        paths = setting.plan(Path(folder) / "calm")
        run_training(paths, setting.ranks)
        return Trained.of(paths)


def differences(paths: RunPaths, setting: TrainSetting, same_shape: bool) -> list[str]:
    """What of a finished run is not that of an undisturbed one; of other shapes losses need only be near."""
    if not merge_train(paths).complete:
        return ["not complete"]
    found, calm = Trained.of(paths), expected(setting)
    accepted = json.loads(paths.metrics.read_text())["counts"]["accepted"]
    problems = [f"the merge counts {accepted} steps"] * (accepted != setting.steps)
    if found.samples != calm.samples:
        problems.append("other samples in a step")
    if found.weights.keys() != calm.weights.keys():
        problems.append(f"other files: {sorted(found.weights)}")
    if same_shape:
        problems += ["losses differ"] * (found.bits != calm.bits) + ["weights differ"] * (found.weights != calm.weights)
    elif any(abs(ours - theirs) > _NEAR for ours, theirs in zip(found.losses, calm.losses, strict=True)):
        problems.append("losses are not near")
    return problems
