"""Which engines run a model, told on the login node from config.json alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpcjobs.config import Config
from hpcjobs.engines.generation_keys import is_guided

# Model types that keep a state, or whose attention is their own: tests/reference/test_families.py tries them.
_OWN_WAYS = {
    "bamba", "biogpt", "bloom", "codegen", "diffllama", "doge", "falcon", "falcon_h1", "falcon_mamba", "gpt_neo",
    "gptj", "jamba", "lfm2", "llama4", "llama4_text", "mamba", "mamba2", "minimax", "mpt", "nemotron_h", "openai-gpt",
    "qwen3_next", "recurrent_gemma", "rwkv", "stablelm", "xglm", "xlstm", "zamba", "zamba2",
}  # fmt: skip
# Those whose keys and values are of other shapes than the cache of continuous batching.
_OWN_KEYS = {"deepseek_v2", "deepseek_v3", "jetmoe"}


def likely_engine(config: Config, model: Mapping[str, object], generation: Mapping[str, object]) -> str:
    """The engine that `auto` will probably be with the model of this config.json and these generation settings.

    The rank decides once it has loaded the model: its GPU may not work, for example.
    """
    if is_guided(generation.get("guidance_scale")):
        return "generate"
    gpus = (config.cluster.gpus or 0) + (config.cluster.gpus_per_node or 0) > 0
    greedy = config.task.generation.temperature == 0 and not config.run.deterministic
    if gpus and greedy and config.model.gpus_per_rank == 1 and may_run("transformers", model):
        return "transformers"
    return "loop" if may_run("loop", model) else "generate"


def may_run(engine: str, model: Mapping[str, Any]) -> bool:
    """Whether `loop` or `transformers` may run the model of this config.json. False is certain, True is not."""
    text = model.get("text_config", model)
    kind, layers = str(model.get("model_type", "")), set(text.get("layer_types") or ())
    if kind in _OWN_WAYS or _rope_types(text) & {"dynamic", "longrope"}:
        return False
    if engine == "transformers":
        return kind not in _OWN_KEYS and layers <= {"full_attention", "sliding_attention"}
    window = text.get("sliding_window") if text.get("use_sliding_window", True) and not layers else None
    return not window and layers <= {"full_attention"}


def _rope_types(model: Mapping[str, Any]) -> set[str]:
    """The types of rotary embeddings in a config.json, of any age."""
    rope = model.get("rope_parameters") or model.get("rope_scaling") or {}
    kinds = [rope, *(part for part in rope.values() if isinstance(part, dict))]
    return {str(kind.get("rope_type", kind.get("type"))) for kind in kinds}
