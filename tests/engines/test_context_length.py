"""The context length of models and tokenizers that name it in different places, as lm_eval resolves it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hpcjobs.engines.context_length import ASSUMED_LENGTH, config_length, context_length, window_length

UNSET = 1000000000000000019884624838656  # what transformers writes for a tokenizer that names none
TEXT = {"max_position_embeddings": 128}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"n_positions": 64}, UNSET), ({"max_position_embeddings": 64, "n_positions": 32}, 16), ({"n_ctx": 7}, UNSET),
        ({}, 512), ({}, UNSET), ({"text_config": SimpleNamespace(**TEXT), "max_position_embeddings": 9}, UNSET),
    ],
)  # fmt: skip
def test_windows_are_as_long_as_lm_evals(config: dict[str, Any], said: int) -> None:
    from lm_eval.models.utils import resolve_max_length

    model: Any = SimpleNamespace(config=SimpleNamespace(**config))
    tokenizer: Any = SimpleNamespace(model_max_length=said)
    right = resolve_max_length(model.config, tokenizer)
    assert window_length(model, tokenizer) == right
    assert context_length(model, tokenizer) == (right if config or said != UNSET else 1 << 20)
    assert right != ASSUMED_LENGTH or not config


def test_a_config_file_as_it_stands() -> None:
    assert config_length({"text_config": TEXT, "max_position_embeddings": 9}) == 128
    assert config_length({"max_position_embeddings": -1, "n_ctx": None}) is None
