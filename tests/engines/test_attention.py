"""Whose attention continuous batching may replace."""

from __future__ import annotations

import pytest

from hpcjobs.engines.attention import asks_interface
from tests.reference.families import family

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.model

ASKS = {"llama": True, "gpt_oss": True, "diffllama": False, "jetmoe": False, "deepseek_v2": False}


@pytest.mark.parametrize("name", ASKS)
def test_models_of_which_each_layer_asks_once_for_what_the_config_tells(name: str) -> None:
    model, ids = family(name), torch.arange(4, 9)[None]
    with torch.inference_mode():
        before = model(input_ids=ids).logits
        assert asks_interface(model) == ASKS[name]
        assert torch.equal(model(input_ids=ids).logits, before)
