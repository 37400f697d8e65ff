"""The summed loss of a batch, computed only at trained tokens."""

from __future__ import annotations

import inspect
from enum import StrEnum
from typing import TYPE_CHECKING

from hpcjobs.training.data.collate import IGNORED, Batch

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class PackedBy(StrEnum):
    """What tells a model which tokens of a packed row are of one sample."""

    POSITIONS = "positions"  # positions that begin at 0 with each sample: the model makes its masks of them
    MASKS = "masks"  # the masks that transformers makes of such positions, for models that do not


class Loss:
    """Sums cross entropy over trained tokens. `plain` is the model without wrappers; `way` that of its packed rows."""

    def __init__(self, plain: PreTrainedModel, device: torch.device, way: PackedBy = PackedBy.POSITIONS) -> None:
        base = plain.get_base_model() if hasattr(plain, "get_base_model") else plain
        self.plain, self.device, self._base, self._way = plain, device, base, way
        self._keeps = "logits_to_keep" in inspect.signature(type(base).forward).parameters

    def __call__(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """The sum (float32 scalar) of the losses of `batch.targets` tokens; gradients flow through `model`."""
        import torch

        total: torch.Tensor = torch.nn.functional.cross_entropy(
            self.logits(model, batch).flatten(0, 1).float(), batch.labels.to(self.device).flatten(),
            ignore_index=IGNORED, reduction="sum",
        )  # fmt: skip
        return total

    def logits(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """The logits at `batch.places`, (rows, places, vocabulary)."""
        inputs = {name: value.to(self.device) for name, value in batch.inputs.items()}
        if self._way is PackedBy.MASKS and "position_ids" in inputs:
            inputs["attention_mask"] = self._masks(inputs["position_ids"])
        places = batch.places.to(self.device)
        keep = {"logits_to_keep": places} if self._keeps else {}
        logits: torch.Tensor = model(**inputs, **keep, use_cache=False).logits
        return logits if self._keeps else logits[:, places]

    def _masks(self, positions: torch.Tensor) -> torch.Tensor:
        """The attention mask of packed rows, or one for each type of layers."""
        import torch
        from transformers.masking_utils import create_masks_for_generate

        rows = torch.empty(*positions.shape, 1, dtype=torch.float32, device=self.device)  # its shape tells, no more
        made: torch.Tensor = create_masks_for_generate(self._base.config, rows, None, None, position_ids=positions)
        return made
