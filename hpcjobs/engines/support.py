"""What a model's cache can do, told from its config."""

from __future__ import annotations

from typing import Any


def has_plain_cache(model: Any) -> bool:
    """Whether every layer keeps keys and values of all tokens: then what tokens have in common can be shared."""
    config = model.config.get_text_config()
    if getattr(model.config, "is_encoder_decoder", False):
        return False
    layers = getattr(config, "layer_types", None)
    if layers is not None:
        return set(layers) == {"full_attention"}
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    return window is None and not hasattr(config, "state_size")
