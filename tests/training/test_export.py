"""Adapters on DDP and FSDP: trained alone, killed and resumed bit for bit, and given away merged and by themselves."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.assets import ASSETS
from hpcjobs.config.resolve import read_config
from hpcjobs.config.yaml import dump_yaml
from hpcjobs.merge.train import merge_train
from hpcjobs.run_folder.files import sha256_of
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.training.checkpoints.checkpoint import MANIFEST
from hpcjobs.training.evals import model_steps
from hpcjobs.training.export import merged_model
from tests.trainings import TrainingRanks, bits, curve_of, logs_of, plan_training, run_training, weights_hash

pytestmark = pytest.mark.model
LORA: dict[str, Any] = {
    "init": "pretrained", "lora": {"rank": 4, "dropout": 0.1}, "learning_rate": 0.01, "validation_fraction": 0.1,
    "eval_every": 4,
}  # fmt: skip
SHARDED: dict[str, Any] = LORA | {"fsdp": {"enabled": True}}


@pytest.fixture(scope="module")
def ddp(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    paths = plan_training(tmp_path_factory.mktemp("ddp") / "run", 2, **LORA)
    run_training(paths, 2)
    return paths


@pytest.fixture(scope="module")
def fsdp(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    paths = plan_training(tmp_path_factory.mktemp("fsdp") / "run", 2, **SHARDED)
    run_training(paths, 2)
    return paths


@pytest.fixture(params=["ddp", "fsdp"])
def calm(request: pytest.FixtureRequest) -> RunPaths:
    """A run that nothing happened to, of each kind."""
    paths: RunPaths = request.getfixturevalue(request.param)
    return paths


def logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model.eval()(torch.arange(1, 40)[None]).logits


def test_sharded_adapters_learn_as_those_of_ddp(ddp: RunPaths, fsdp: RunPaths) -> None:
    assert "FSDP" in logs_of(fsdp)
    assert "DistributedDataParallel" in logs_of(ddp)
    for name in ("loss", "grad_norm", "eval_loss"):
        one, other = ([getattr(record, name) for record in curve_of(paths)] for paths in (ddp, fsdp))
        assert [value for value in one if value is not None] == pytest.approx(
            [value for value in other if value is not None], abs=1e-5 if name != "grad_norm" else 1e-4
        )
    curve = curve_of(fsdp)
    assert curve[-1].loss < curve[0].loss


def test_a_checkpoint_has_adapters_alone(calm: RunPaths) -> None:
    import torch
    from safetensors.torch import load_file

    names = load_file(calm.checkpoint(8) / "weights.safetensors").keys()
    assert len(names) == 2 * 7 * 4, "two for each of seven layers of four blocks"
    assert all("lora_" in name for name in names)
    kept = torch.load(calm.checkpoint(8) / "optimizer.pt", map_location="cpu", weights_only=True)
    assert len(kept["optimizer"]["state"]) == len(names)


@pytest.mark.parametrize(("kind", "train"), [("ddp", LORA), ("fsdp", SHARDED)])
def test_killed_and_resumed_bit_for_bit(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, train: dict[str, Any]
) -> None:
    """Models of steps on the way are made from the adapters of then, and training does not feel it."""
    calm: RunPaths = request.getfixturevalue(kind)
    after = tmp_path / "after.yaml"
    task = {"prompt": "{{ question }}", "target": "{{ answer }}", "metrics": ["exact_match"]}
    after.write_text(dump_yaml({"data": {"name": "canned_50_quick"}, "task": task}))
    paths = plan_training(tmp_path / "run", 2, **train, then_eval=str(after), then_eval_every=2)
    with TrainingRanks(paths, 2, "a") as ranks:
        ranks.wait_for_step(4)
        ranks.signal(1, signal.SIGKILL)
        assert 0 not in ranks.finish()
    assert not paths.adapter.exists()
    run_training(paths, 2, "b")
    assert "goes on after step" in logs_of(paths)
    assert bits(curve_of(paths)) == bits(curve_of(calm)), "the random states of dropout did not come back"
    assert weights_hash(paths) == weights_hash(calm)
    assert model_steps(paths) == [2, 4, 6]
    written = [paths.step_model(6) / "model.safetensors", paths.checkpoint(6) / MANIFEST]
    assert written[0].stat().st_mtime_ns < written[1].stat().st_mtime_ns, "a kill in between would cost the model"
    models = [paths.step_model(step) for step in (2, 4, 6)] + [paths.model]
    assert len({sha256_of(model / "model.safetensors") for model in models}) == 4
    assert {path.name for path in models[0].iterdir()} == {path.name for path in paths.model.iterdir()}


def test_the_model_is_a_plain_one_in_which_only_what_was_adapted_has_changed(calm: RunPaths) -> None:
    import torch
    import transformers
    from safetensors import safe_open

    model = transformers.AutoModelForCausalLM.from_pretrained(calm.model)
    base = transformers.AutoModelForCausalLM.from_pretrained(ASSETS / "tiny")
    assert type(model).__name__ == "LlamaForCausalLM"
    before = dict(base.named_parameters())
    changed = [name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])]
    assert len(changed) == 7 * 4
    assert all("proj" in name for name in changed), "what is frozen has changed"
    assert not torch.allclose(logits(model), logits(base), atol=0.1)
    with safe_open(calm.model / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(before)


def test_the_adapter_on_its_base_is_the_model(calm: RunPaths) -> None:
    import peft
    import torch
    import transformers

    said = json.loads((calm.adapter / "adapter_config.json").read_text())
    assert said["base_model_name_or_path"] == str(ASSETS / "tiny")
    base = transformers.AutoModelForCausalLM.from_pretrained(said["base_model_name_or_path"])
    adapted = peft.PeftModel.from_pretrained(base, calm.adapter)
    model = transformers.AutoModelForCausalLM.from_pretrained(calm.model)
    assert torch.allclose(logits(adapted), logits(model), atol=1e-4)
    assert {path.stat().st_mode & 0o777 for path in calm.adapter.iterdir()} == {0o600}
    names = {path.name for path in calm.adapter.iterdir()}
    assert names == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert "base_model: tiny" in (calm.adapter / "README.md").read_text()
    merge_train(calm)
    assert json.loads(calm.metrics.read_text())["train"]["adapter"] == str(calm.adapter)
    assert not list(calm.root.glob(".*.tmp"))


def test_a_checkpoint_is_enough_to_make_the_model(calm: RunPaths) -> None:
    """What is merged comes from base and adapters alone, not from the model that is being trained."""
    import torch
    from safetensors.torch import load_file

    merged = merged_model(read_config(calm.config), load_file(calm.checkpoint(8) / "weights.safetensors"))
    model = load_file(calm.model / "model.safetensors")
    found = dict(merged.named_parameters())
    assert found.keys() == model.keys()
    assert all(torch.equal(weight, model[name]) for name, weight in found.items())


def test_adapters_of_random_weights_are_merged_alone(tmp_path: Path) -> None:
    """Nobody has their base: there is a model, and no adapter that could not be loaded."""
    paths = plan_training(tmp_path / "run", **LORA | {"init": "random", "max_steps": 2})
    run_training(paths, 1)
    assert paths.model.is_dir()
    assert not paths.adapter.exists()
    merge_train(paths)
    assert json.loads(paths.metrics.read_text())["train"]["adapter"] is None
