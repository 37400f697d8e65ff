"""How many tokens a model reads at most.

The order in which it is looked up, and the length of a model that names none, are lm-evaluation-harness's
(`lm_eval.models.utils.resolve_max_length`, version 0.4.13, MIT License).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

# What texts are cut to where nobody names a length.
ASSUMED_LENGTH = 2048
_NAMES = ("n_positions", "max_position_embeddings", "n_ctx")
# What a config.json has instead, by its model type: the `attribute_map` of transformers' config classes (5.23).
_FILE_NAMES = {
    "rwkv": "context_length", "dbrx": "max_seq_len", "kimi_linear": "model_max_length",
    "bailing_hybrid": "model_max_length",
}  # fmt: skip
# More is how tokenizers say that they know none (transformers writes 1e30).
_MOST = 1 << 40
_NO_LIMIT = 1 << 20


def context_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The tokens that a prompt and its answer may have together: without a named length as many as fit memory."""
    return named_length(model, tokenizer) or _NO_LIMIT


def window_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The tokens that a text is cut to, or scored in windows of."""
    return named_length(model, tokenizer) or ASSUMED_LENGTH


def named_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The context length in tokens that the model's config or its tokenizer names."""
    said = int(tokenizer.model_max_length)
    return config_length(model.config) or (said if 0 < said < _MOST else None)


def config_length(config: PreTrainedConfig | Mapping[str, object]) -> int | None:
    """The context length in tokens that a config, or what a config.json holds, names: that of its text model."""
    text = _value(config, "text_config") or config
    own = _FILE_NAMES.get(str(_value(text, "model_type")))
    found = (_value(text, name) for name in (*_NAMES, *([own] if own else [])))
    return next((length for length in found if isinstance(length, int) and length > 0), None)


def _value(config: object, name: str) -> object:
    return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)
