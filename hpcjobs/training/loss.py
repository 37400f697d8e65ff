"""The summed loss of a batch, computed only at trained tokens."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from hpcjobs.training.data.collate import IGNORED, Batch, block_mask

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from transformers import PreTrainedModel


class Loss:
    """Sums cross entropy over trained tokens. `plain` is the model without wrappers."""

    def __init__(self, plain: PreTrainedModel, device: torch.device) -> None:
        base = plain.get_base_model() if hasattr(plain, "get_base_model") else plain
        self._device, self._base = device, base
        self._keeps = "logits_to_keep" in inspect.signature(type(base).forward).parameters

    def blocks(self, numbers: npt.NDArray[np.int64]) -> torch.Tensor:
        """The attention mask of packed rows, in the form that the model's attention needs."""
        kind = getattr(self._base.config, "_attn_implementation", "eager")
        return block_mask(numbers, additive=kind != "sdpa")

    def __call__(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """The sum (float32 scalar) of the losses of `batch.targets` tokens; gradients flow through `model`."""
        import torch

        inputs = {name: value.to(self._device) for name, value in batch.inputs.items()}
        places, labels = batch.places.to(self._device), batch.labels.to(self._device)
        keep = {"logits_to_keep": places} if self._keeps else {}
        logits = model(**inputs, **keep, use_cache=False).logits
        logits = logits if self._keeps else logits[:, places]
        total: torch.Tensor = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return total
