"""A model is stored in the type that was asked for, rounded once, and transformers loads it as it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.assets import ASSETS
from hpcjobs.config import WeightsConfig
from hpcjobs.engines.loader import ModelSource, load_model
from hpcjobs.engines.store import store_model

pytestmark = pytest.mark.model
SIZES: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 4,
}  # fmt: skip
MOE: dict[str, Any] = SIZES | {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}
KINDS: list[tuple[str, dict[str, Any]]] = [
    ("llama", SIZES | {"tie_word_embeddings": True}),
    ("qwen3_moe", MOE | {"moe_intermediate_size": 8}),
    ("mixtral", MOE),
    ("deepseek_v3", SIZES | {
        "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "first_k_dense_replace": 1,
        "n_group": 2, "topk_group": 1, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "v_head_dim": 4,
        "qk_nope_head_dim": 4, "num_key_value_heads": 4,
    }),
]  # fmt: skip


def model_of(kind: str, values: dict[str, Any]) -> Any:
    import torch
    import transformers

    torch.manual_seed(3)
    return transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(kind, **values))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(("kind", "values"), KINDS)
def test_what_is_loaded_is_what_was_stored_rounded(
    tmp_path: Path, kind: str, values: dict[str, Any], dtype: str
) -> None:
    """Models whose experts lie apart in their files, too, and weights that are float32 whatever the rest is."""
    import torch
    import transformers

    model = model_of(kind, values)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    store_model(model, model.state_dict(), tmp_path, getattr(torch, dtype))
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == dtype
    found, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto", output_loading_info=True)
    assert not any(report.values()), report
    after = found.state_dict()
    assert after.keys() == before.keys()
    for name, weight in after.items():
        wanted = "float32" if "e_score_correction_bias" in name else dtype
        assert str(weight.dtype) == f"torch.{wanted}", name
        assert torch.equal(weight, before[name].to(weight.dtype)), name
    assert torch.equal(next(model.parameters()), before[next(iter(before))]), "the model in memory has changed"


def test_types_in_a_config_of_parts_are_named_alike(tmp_path: Path) -> None:
    import torch

    model = model_of("gemma3_text", SIZES)
    model.config.extra = {"part": {"dtype": "float32", "size": 3}}
    store_model(model, model.state_dict(), tmp_path, torch.bfloat16)
    said = json.loads((tmp_path / "config.json").read_text())
    assert (said["dtype"], said["extra"]) == ("bfloat16", {"part": {"dtype": "bfloat16", "size": 3}})


@pytest.mark.parametrize(("number", "stored"), [(65519.0, "F16"), (65520.0, "F32"), (-65520.0, "F32")])
def test_a_model_that_float16_cannot_hold_is_stored_in_float32(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, number: float, stored: str
) -> None:
    import torch

    from hpcjobs.engines.weight_files import stored_tensors

    model = model_of("llama", SIZES)
    with torch.no_grad():
        model.lm_head.weight[1, 1] = number
    store_model(model, model.state_dict(), tmp_path, torch.float16)
    assert {one.dtype for one in stored_tensors(tmp_path).values()} == {stored}
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == {"F16": "float16", "F32": "float32"}[stored]
    assert ("lm_head.weight has numbers that are infinite in torch.float16" in caplog.text) == (stored == "F32")


def test_weights_of_other_names_are_stored_under_the_model_s_own(tmp_path: Path) -> None:
    """With `weights.rename` save_pretrained puts the names of the base's files back, which load as random numbers."""
    import transformers
    from safetensors.torch import load_file, save_file

    base = tmp_path / "base"
    shutil.copytree(ASSETS / "tiny", base)
    held = {f"module.{name}": one for name, one in load_file(base / "model.safetensors").items()}
    save_file(held, base / "model.safetensors", {"format": "pt"})
    model, _ = load_model(ModelSource(str(base), weights=WeightsConfig(rename={r"^module\.": ""})))
    store_model(model, model.state_dict(), tmp_path / "m")
    assert {f"module.{name}" for name in load_file(tmp_path / "m" / "model.safetensors")} == held.keys()
    _, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m", output_loading_info=True)
    assert not any(report.values())
