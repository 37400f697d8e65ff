"""Predict what engine `auto` will be, on the login node, from config.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpcjobs.config import Config

# Model types that cache something other than keys and values, or have their own attention.
_OTHER = (
    "mamba", "rwkv", "jamba", "bamba", "zamba", "recurrent", "bloom", "mpt", "falcon", "xlstm", "biogpt", "codegen",
    "diffllama", "gptj", "lfm2", "llama4", "minimax", "qwen3_next", "stablelm", "xglm",
)  # fmt: skip


def likely_engine(config: Config, model: Mapping[str, Any]) -> str:
    """The engine that `auto` will probably be for generation with the model of this config.json.

    The rank decides once it has loaded the model: its GPU may not work, for example.
    """
    text = model.get("text_config", model)
    kinds = set(text.get("layer_types") or ())
    window = text.get("sliding_window") if text.get("use_sliding_window", True) and not kinds else None
    kind = str(model.get("model_type", ""))
    other = kind.startswith(_OTHER) or kind == "gpt_neo" or bool(_rope_types(text) & {"dynamic", "longrope"})
    gpus = (config.cluster.gpus or 0) + (config.cluster.gpus_per_node or 0) > 0
    greedy = config.task.generation.temperature == 0 and not config.run.deterministic
    if gpus and greedy and not other and config.model.gpus_per_rank == 1:
        return "transformers"
    return "generate" if other or window or kinds - {"full_attention"} else "loop"


def _rope_types(model: Mapping[str, Any]) -> set[str]:
    """The types of rotary embeddings in a config.json, of any age."""
    rope = model.get("rope_parameters") or model.get("rope_scaling") or {}
    kinds = [rope, *(part for part in rope.values() if isinstance(part, dict))]
    return {str(kind.get("rope_type", kind.get("type"))) for kind in kinds}
