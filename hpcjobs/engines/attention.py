"""Whether a model's attention can be replaced: continuous batching puts one with a cache of its own in its place.

AttentionInterface: https://huggingface.co/docs/transformers/attention_interface.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hpcjobs.engines.tried import once_a_model

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_NAME = "hpcjobs_trial"
# What the trial that is running was asked: attention module, shape of its keys, shape of its values.
_asked = list[tuple[int, Any, Any]]()


@once_a_model("%s keeps its attention")
def asks_interface(model: PreTrainedModel) -> bool:
    """Whether each layer takes its attention from transformers' AttentionInterface, once, with the keys and values that
    its config tells: tried with a function that takes note.

    Some models say that they do (`_supports_attention_backend`) and ask twice (DiffLlama), so that the cache has the
    second values alone and answers are wrong.
    """
    return _same_as_told(model, _asked_by(model))


def _same_as_told(model: PreTrainedModel, asked: Sequence[tuple[int, torch.Size, torch.Size]]) -> bool:
    """Whether the layers have asked once each, for a cache of the shape that transformers' paged one has."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    once = len(asked) == len({module for module, *_ in asked}) == config.num_hidden_layers
    return once and all(shape[1::2] == (heads, size) for _, *shapes in asked for shape in shapes)


def _asked_by(model: PreTrainedModel) -> list[tuple[int, torch.Size, torch.Size]]:
    import torch
    import transformers

    transformers.AttentionInterface.register(_NAME, _nothing)
    found = {id(module.config): module.config for module in model.modules() if hasattr(module, "config")}
    configs = [config for config in found.values() if hasattr(config, "_attn_implementation_internal")]
    before = [config._attn_implementation_internal for config in configs]
    ids = torch.tensor([[5, 6, 7]], device=model.get_input_embeddings().weight.device)
    _asked.clear()
    try:
        for config in configs:
            config._attn_implementation_internal = _NAME
        with torch.inference_mode():
            model(input_ids=ids, use_cache=False)
    finally:
        for config, name in zip(configs, before, strict=True):
            config._attn_implementation_internal = name
    return list(_asked)


def _nothing(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: object, **how: object
) -> tuple[torch.Tensor, None]:
    """No attention at all: `query` [rows, heads, tokens, size] gives zeros [rows, tokens, heads, size of a value]."""
    _asked.append((id(module), key.shape, value.shape))
    rows, heads, tokens, _ = query.shape
    return value.new_zeros(rows, tokens, heads, value.shape[-1]), None
