"""What the lengths of rows change in a model: its positions, what its layers see, what padding does."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from hpcjobs.engines.tried import once_a_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The largest allowed difference of logits, as a share of their standard deviation, by bytes per number.
NEAR = {4: 1e-3, 2: 0.15}
# Keys of configs for how far a layer looks back, in tokens.
_WINDOWS = ("sliding_window", "window_size", "local_attention", "attention_window_size", "attention_chunk_size")
# The longest window that the trial of padding goes beyond, in tokens: it should take seconds on a CPU.
_MOST_PADDED = 1024


def rope_kinds(model: PreTrainedModel) -> list[dict[str, Any]]:
    """The parameters of the model's rotary embeddings; some models have one kind for each type of layer."""
    rope = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    return [rope, *(part for part in rope.values() if isinstance(part, dict))]


def has_fixed_positions(model: PreTrainedModel) -> bool:
    """Whether position embeddings do not depend on the length of the input, so a long row does not change others."""
    return not any(kind.get("rope_type") in ("dynamic", "longrope") for kind in rope_kinds(model))


def position_border(model: PreTrainedModel) -> int | None:
    """The tokens beyond which the longest row of a batch changes the positions of all (longrope); None if none does.

    Dynamic rotary embeddings have theirs at the positions of the config, beyond which nothing is trained.
    """
    longs = [kind for kind in rope_kinds(model) if kind.get("rope_type") == "longrope"]
    return min((int(kind["original_max_position_embeddings"]) for kind in longs), default=None)


def takes_positions(model: PreTrainedModel) -> bool:
    """Whether the model is told the position of each token, instead of counting places (MPT, Bloom, states)."""
    return "position_ids" in inspect.signature(model.forward).parameters


def dynamic_factor(model: PreTrainedModel) -> float:
    """How many times the positions of its config the model can go beyond them, with dynamic rotary embeddings (as vllm
    has it); 1 for all other models.
    """
    return _factor(rope_kinds(model))


def named_dynamic_factor(config: Mapping[str, Any]) -> float:
    """`dynamic_factor` by what a config.json holds; older ones name it in `rope_scaling`, by `type`."""
    text = config.get("text_config") or config
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    return _factor([rope, *(part for part in rope.values() if isinstance(part, dict))])


def _factor(kinds: Iterable[Mapping[str, Any]]) -> float:
    dynamic = (kind for kind in kinds if "dynamic" in (kind.get("rope_type"), kind.get("type")))
    return max((float(kind.get("factor", 1.0)) for kind in dynamic), default=1.0)


def forget_lengths(model: PreTrainedModel) -> None:
    """Put dynamic rotary embeddings back as they were loaded: transformers keeps those of the longest row so far."""
    if has_fixed_positions(model):
        return
    for module in model.modules():
        for name in [name for name in dir(module) if name.endswith("original_inv_freq")]:
            kind, first = name.removesuffix("original_inv_freq"), getattr(module, "original_max_seq_len", 0)
            if getattr(module, f"{kind}max_seq_len_cached", 0) > first:
                setattr(module, f"{kind}inv_freq", getattr(module, name).to(model.device))
                setattr(module, f"{kind}max_seq_len_cached", first)


def longest_window(model: PreTrainedModel) -> int:
    """How many tokens a layer with a window sees, by the config, the most of all such layers; 0 if all see all."""
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    if kinds and not any("sliding" in kind or "chunked" in kind for kind in kinds):
        return 0  # a window that no layer has
    found = (getattr(config, name, None) for name in _WINDOWS)
    return max((size for size in found if isinstance(size, int)), default=0)


def takes_padding(model: PreTrainedModel) -> bool:
    """Whether `generate` gives a row padded on the left what it gives without padding: tried on two rows.

    Not where positions depend on the longest row, and not where padding enters a state.
    """
    if not has_fixed_positions(model) or getattr(model, "_is_stateful", False):
        return False
    return _same_padded(model)


@once_a_model("%s takes no padding")
def _same_padded(model: PreTrainedModel) -> bool:
    """Compare the logits of two new tokens after a padded row with those of the row alone."""
    import torch

    from hpcjobs.engines.processors import without_defaults

    size, window = int(model.config.get_text_config().vocab_size), longest_window(model)
    length = 5 + (window if window <= _MOST_PADDED else 0)
    row = [(5 * n + 2) % size for n in range(length)]
    rows = [[0] * 7 + row, [(7 * n + 1) % size for n in range(length + 7)]]
    given = [([row], [[1] * length]), (rows, [[0] * 7 + [1] * length, [1] * (length + 7)])]
    found = []
    for ids, mask in given:
        with torch.inference_mode(), without_defaults(model):
            output = model.generate(
                input_ids=torch.tensor(ids, device=model.device), pad_token_id=0, do_sample=False, max_new_tokens=2,
                attention_mask=torch.tensor(mask, device=model.device), output_logits=True,
                return_dict_in_generate=True,
            )  # fmt: skip
        found.append([step[0].float() for step in output.logits])
    near = NEAR[model.dtype.itemsize]
    return all(bool((one - other).abs().max() <= near * one.std()) for one, other in zip(*found, strict=True))
