"""Which engines can run a model."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from hpcjobs.engines.attention import asks_interface
from hpcjobs.engines.lengths import NEAR, has_fixed_positions
from hpcjobs.engines.tried import once_a_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


def has_plain_cache(model: PreTrainedModel) -> bool:
    """Whether all layers of the model cache the keys and values of all tokens, and nothing else.

    False for sliding windows, chunked attention, state-space and recurrent layers, and encoder-decoders.
    """
    import transformers

    config = model.config
    if getattr(config, "is_encoder_decoder", False) or getattr(model, "_is_stateful", False):
        return False
    if "local" in (getattr(config, "attention_layers", None) or ()):  # GPT-Neo: windows by place in the cache
        return False
    try:
        layers = transformers.DynamicCache(config=config).layers
    except (AttributeError, KeyError, ValueError, TypeError):  # a config that no such cache can be made from
        return False
    return bool(layers) and all(type(layer) is transformers.cache_utils.DynamicLayer for layer in layers)


def runs_packed(model: PreTrainedModel) -> bool:
    """Whether `loop` can run the model: tested on a few tokens against the model's own forward pass."""
    if not has_plain_cache(model) or not getattr(model, "_supports_attention_backend", False):
        return False
    return has_fixed_positions(model) and _same_logits(model)


def runs_loop(model: PreTrainedModel) -> bool:
    """Whether the engine `loop` can run the model and what its generation config asks for."""
    from hpcjobs.engines.processors import keeps_state

    return not keeps_state(model) and runs_packed(model)


def flash_attention(model: PreTrainedModel) -> bool:
    """Whether continuous batching has flash attention for the model: on GPUs, in 16 bits, where a kernel is there."""
    from transformers.utils import import_utils

    if model.device.type != "cuda" or model.dtype.itemsize > 2 or not getattr(model, "_supports_flash_attn", False):
        return False
    known = (import_utils.is_flash_attn_3_available, import_utils.is_flash_attn_2_available)
    return any(available(kernels_fallback_ok=True) for available in known)


@once_a_model("the loop engine does not run %s")
def _same_logits(model: PreTrainedModel) -> bool:
    """Compare logits of two rows, the second with a prefix copied from the first, with the model's own."""
    import torch

    from hpcjobs.engines.loop.packed import PackedModel, Piece

    vocabulary = int(model.config.get_text_config().vocab_size)
    one = [(7 * n + 1) % vocabulary for n in range(9)]
    other = [*one[:5], *((5 * n + 2) % vocabulary for n in range(6))]
    packed = PackedModel(model, 3)
    packed.logits(
        [Piece(place=0, start=0, tokens=one[:-1]), Piece(place=2, start=5, tokens=other[5:-1], source=0, copied=5)]
    )
    order, found = packed.logits(
        [Piece(place=0, start=len(one) - 1, tokens=one[-1:]), Piece(place=2, start=len(other) - 1, tokens=other[-1:])]
    )
    for number, logits in zip(order, found, strict=True):
        ids = torch.tensor([(one, other)[number]], device=found.device)
        with torch.inference_mode():
            expected = model(input_ids=ids, use_cache=False).logits[0, -1].float()
        if not (logits.float() - expected).abs().max() <= NEAR[model.dtype.itemsize] * expected.std():
            log.info("the loop engine does not run %s: other logits", type(model).__name__)
            return False
    return True


def runs_continuous(model: PreTrainedModel) -> bool:
    """Whether transformers' continuous batching (`ContinuousBatchingManager`) can run the model."""
    config = model.config
    if getattr(config, "is_encoder_decoder", False) or getattr(model, "_is_stateful", False):
        return False
    if not hasattr(model, "init_continuous_batching") or getattr(model, "hf_device_map", None):
        return False
    if not has_fixed_positions(model):  # its rows share their passes
        return False
    kinds = set(getattr(config.get_text_config(), "layer_types", None) or ["full_attention"])
    return (
        bool(getattr(model, "_supports_attention_backend", False))
        and kinds <= {"full_attention", "sliding_attention"}
        and asks_interface(model)
    )
