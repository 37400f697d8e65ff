"""model/ has the type of the base model, or train.save_dtype: trained in float32, merged in float32, rounded once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.assets import ASSETS
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan
from tests.trainings import plan_training, run_training

pytestmark = pytest.mark.model
SHORT: dict[str, Any] = {"init": "pretrained", "max_steps": 2, "learning_rate": 0.01, "checkpoint_every": 2}
Tensors = dict[str, Any]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in bfloat16, its output layer apart from its embeddings."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("base") / "tiny16"
    shutil.copytree(ASSETS / "tiny", folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach() * 1.5)
    model.save_pretrained(folder)
    return folder


def trained(folder: Path, base: Path, ranks: int = 1, **train: Any) -> RunPaths:
    paths = plan_training(folder / "run", ranks, model=str(base), **SHORT | train)
    run_training(paths, ranks)
    return paths


def stored(file: Path) -> Tensors:
    from safetensors.torch import load_file

    tensors: Tensors = load_file(file)
    return tensors


def check(paths: RunPaths, float32: Tensors, dtype: str) -> None:
    """model/ is these weights, rounded, and every place names the type."""
    import torch

    found = stored(paths.model / "model.safetensors")
    assert found.keys() == float32.keys()
    assert {weight.dtype for weight in float32.values()} == {torch.float32}
    assert all(torch.equal(found[name], weight.to(getattr(torch, dtype))) for name, weight in float32.items())
    assert {weight.dtype for weight in found.values()} == {getattr(torch, dtype)}
    assert json.loads((paths.model / "config.json").read_text())["dtype"] == dtype
    assert f"saved   in {dtype}" in Plan.read(paths.plan).summary()


def base_and_adapter(base: Path, paths: RunPaths) -> Tensors:
    """What peft itself makes of them, in float32."""
    import peft
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged: Any = peft.PeftModel.from_pretrained(model, paths.adapter).merge_and_unload()
    weights: Tensors = merged.state_dict()
    return weights


@pytest.mark.parametrize(("ranks", "fsdp"), [(1, False), (2, True)])
def test_all_weights(tmp_path: Path, base: Path, ranks: int, fsdp: bool) -> None:
    """The last checkpoint has what was trained, in float32."""
    paths = trained(tmp_path, base, ranks, fsdp={"enabled": fsdp})
    check(paths, stored(paths.checkpoint(2) / "weights.safetensors"), "bfloat16")


@pytest.mark.parametrize(
    ("dtype", "targets"), [("auto", ()), ("float16", ("q_proj", "lm_head", "embed_tokens")), ("float32", ("up_proj",))]
)
def test_adapters(tmp_path: Path, base: Path, dtype: str, targets: tuple[str, ...]) -> None:
    """Also of the output layer and the embeddings, where those are not tied."""
    lora = {"rank": 4, "target_modules": targets}
    paths = trained(tmp_path, base, lora=lora, save_dtype=dtype)
    merged = base_and_adapter(base, paths)
    before = stored(base / "model.safetensors")
    changed = [name for name, weight in merged.items() if not before[name].float().equal(weight)]
    assert {name.split(".")[-2] for name in changed} >= set(targets)
    check(paths, merged, "bfloat16" if dtype == "auto" else dtype)


def test_adapters_on_float32_keep_every_bit(tmp_path: Path) -> None:
    paths = trained(tmp_path, ASSETS / "tiny", 2, lora={"rank": 4}, fsdp={"enabled": True})
    merged = base_and_adapter(ASSETS / "tiny", paths)
    del merged["lm_head.weight"]  # the embeddings
    check(paths, merged, "float32")
