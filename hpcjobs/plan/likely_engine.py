"""Predict what engine `auto` will be, on the login node, from config.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpcjobs.config import Config

# Model types that cache something other than keys and values, or have their own attention.
_OTHER = ("mamba", "rwkv", "jamba", "bamba", "zamba", "recurrent", "bloom", "mpt", "falcon_h1", "xlstm")


def likely_engine(config: Config, model: Mapping[str, Any]) -> str:
    """The engine that `auto` will probably be for generation with the model of this config.json.

    The rank decides once it has loaded the model: its GPU may not work, for example.
    """
    text = model.get("text_config", model)
    kinds = set(text.get("layer_types") or ())
    window = text.get("sliding_window") if text.get("use_sliding_window", True) and not kinds else None
    other = model.get("is_encoder_decoder", False) or str(model.get("model_type", "")).startswith(_OTHER)
    gpus = (config.cluster.gpus or 0) + (config.cluster.gpus_per_node or 0) > 0
    greedy = config.task.generation.temperature == 0 and not config.run.deterministic
    if gpus and greedy and not other and config.model.gpus_per_rank == 1:
        return "transformers"
    return "generate" if other or window or kinds - {"full_attention"} else "loop"
