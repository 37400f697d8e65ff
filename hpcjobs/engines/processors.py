"""The logits processors of one row, by generation config and settings: those of `generate` on its prompt alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from hpcjobs.engines.generation_keys import is_guided, processor_keys

if TYPE_CHECKING:
    import torch
    from transformers import LogitsProcessor, PreTrainedModel


def row_processors(
    model: PreTrainedModel, prompt: Sequence[int], limit: int, ends: Sequence[int], penalty: float | None = None
) -> Sequence[LogitsProcessor]:
    """The processors of a prompt that gets at most `limit` new tokens; none for most models.

    `penalty` is a repetition penalty instead of the model's own.
    """
    import torch
    import transformers

    keys = processor_keys(vars(model.generation_config))
    if penalty is not None:
        keys["repetition_penalty"] = penalty
    if not keys:
        return ()
    if "min_new_tokens" in keys:
        keys.pop("min_length", None)  # as `generate` has it
    if not ends:
        keys.pop("exponential_decay_length_penalty", None)
    config = transformers.GenerationConfig(
        **keys, do_sample=False, num_beams=1, use_cache=True, max_length=len(prompt) + limit,
        eos_token_id=sorted(ends) or None,
    )
    model._prepare_special_tokens(config, device=model.device)
    ids = torch.tensor([list(prompt)], device=model.device)
    return list(model._get_logits_processor(config, len(prompt), encoder_input_ids=ids, device=model.device))


def processed(processors: Sequence[LogitsProcessor], tokens: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
    """Logits [vocabulary] in float32, after the processors of a row of these tokens, without padding."""
    import torch

    ids = torch.tensor([list(tokens)], device=logits.device)
    scores = logits[None].float()
    with torch.inference_mode():
        for processor in processors:
            scores = processor(ids, scores)
    return scores[0]


def keeps_state(model: PreTrainedModel) -> bool:
    """Whether a processor remembers the steps before, so that a step cannot be run again: classifier-free guidance."""
    return is_guided(getattr(model.generation_config, "guidance_scale", None))


@contextlib.contextmanager
def without_defaults(model: PreTrainedModel) -> Iterator[None]:
    """Hide the model's generation config from `generate`, which would fill in what is not given."""
    import transformers

    own = model.generation_config
    model.generation_config = transformers.GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own
