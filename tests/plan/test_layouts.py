"""Names and shapes of each layout are those of transformers' own models, as save_pretrained writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.config import WeightsConfig
from hpcjobs.engines.weight_files import stored_tensors
from hpcjobs.plan.layouts import layout_of
from hpcjobs.plan.weights import layout_problems

pytestmark = pytest.mark.model
SMALL = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
# Each kind, and the keys of its config that change names or shapes.
KINDS = {
    "llama": "attention_bias mlp_bias head_dim", "mistral": "head_dim", "granite": "attention_bias mlp_bias",
    "smollm3": "attention_bias mlp_bias", "qwen2": "", "qwen3": "attention_bias head_dim",
    "gemma": "attention_bias head_dim", "gemma2": "head_dim", "gemma3_text": "attention_bias head_dim",
    "olmo": "attention_bias", "olmo2": "attention_bias", "phi3": "", "phi": "qk_layernorm", "starcoder2": "use_bias",
}  # fmt: skip
OTHER = {"head_dim": 8, "use_bias": False}
CASES = [
    (kind, SMALL | {"tie_word_embeddings": tied} | {key: OTHER.get(key, True) for key in keys.split()[:changed]})
    for kind, keys in KINDS.items()
    for changed, tied in enumerate([True, False, True, False][: len(keys.split()) + 1])
]
CASES += [(kind, SMALL) for kind in KINDS]
GPT2 = {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 30}
CASES += [("gpt2", GPT2), ("gpt2", GPT2 | {"n_inner": 24}), ("gpt2", GPT2 | {"tie_word_embeddings": False})]


@pytest.mark.parametrize(("kind", "values"), CASES)
def test_a_layout_is_what_transformers_saves(tmp_path: Path, kind: str, values: dict[str, Any]) -> None:
    import transformers

    config = transformers.AutoConfig.for_model(kind, **values)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    layout = layout_of(json.loads((tmp_path / "config.json").read_text()))
    assert layout is not None
    found = stored_tensors(tmp_path)
    assert layout_problems(layout, found, WeightsConfig()) == []
    shapes = {name: tensor.shape for name, tensor in found.items()}
    assert layout.tied == (layout.output not in shapes)
    once = {layout.output} if layout.tied else set()
    assert shapes == {name: shape for name, shape in layout.tensors.items() if name not in once}


def test_what_is_not_sure_has_no_layout() -> None:
    assert layout_of({"model_type": "rwkv"}) is None
    assert layout_of({}) is None
    assert layout_of({"model_type": "llama", "hidden_size": 8}) is None, "sizes that the library fills in"
    assert layout_of({"model_type": "gpt2", **GPT2, "add_cross_attention": True}) is None
