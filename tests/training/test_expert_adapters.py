"""Adapters on a mixture of experts, whose experts are one parameter: trained, and merged as peft itself does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcjobs.assets import ASSETS
from tests.trainings import plan_training, run_training

pytestmark = pytest.mark.model


def test_the_model_is_base_and_adapter(tmp_path: Path) -> None:
    import peft
    import torch
    import transformers

    tokenizer, base = transformers.AutoTokenizer.from_pretrained(ASSETS / "tiny"), tmp_path / "base"
    torch.manual_seed(0)
    config = transformers.MixtralConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=256,
    )  # fmt: skip
    transformers.MixtralForCausalLM(config).save_pretrained(base)
    tokenizer.save_pretrained(base)
    how: dict[str, Any] = {"init": "pretrained", "lora": {"rank": 2}, "max_steps": 2, "learning_rate": 0.01}
    paths = plan_training(tmp_path / "run", model=str(base), **how)
    run_training(paths, 1)
    model = transformers.AutoModelForCausalLM.from_pretrained(paths.model, dtype=torch.float32).eval()
    before = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    with torch.no_grad():
        plain = before(torch.arange(1, 30)[None]).logits
        adapted = peft.PeftModel.from_pretrained(before, paths.adapter).eval()(torch.arange(1, 30)[None]).logits
        merged = model(torch.arange(1, 30)[None]).logits
    assert torch.allclose(merged, adapted, atol=1e-5)
    assert not torch.allclose(merged, plain, atol=1e-2)
