"""Collate units into tensors: padded on the right, positions and attention separate for each sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hpcjobs.training.data.tokens import TokenFile

if TYPE_CHECKING:
    import torch

# The label that cross entropy ignores.
IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """`inputs` are the model's arguments.

    Logits are needed at `places` (sorted, the same for all rows), where the labels are `labels` (rows, places), IGNORED
    where nothing is trained. `targets` counts the trained tokens, `tokens` all tokens without padding.
    """

    inputs: dict[str, torch.Tensor]
    places: torch.Tensor
    labels: torch.Tensor
    targets: int
    tokens: int


def collate(
    units: Sequence[Sequence[int]],
    tokens: TokenFile,
    pad: int,
    blocks: Callable[[npt.NDArray[np.int64]], torch.Tensor] | None = None,
) -> Batch:
    """A batch of units, on CPU. `blocks` makes the attention mask of packed rows (`block_mask`); None without packing.
    """
    import torch

    width = max(int(tokens.lengths[unit].sum()) for unit in units)
    ids = np.full((len(units), width), pad, np.int64)
    labels = np.full((len(units), width), IGNORED, np.int64)
    positions = np.zeros((len(units), width), np.int64)
    numbers = np.zeros((len(units), width), np.int64)  # of the sample in its row, from 1; 0 is padding
    for row, unit in enumerate(units):
        start = 0
        for number, sample in enumerate(unit, 1):
            found, learned = tokens.sample(sample)
            end = start + len(found)
            ids[row, start:end], numbers[row, start:end] = found, number
            positions[row, start:end] = np.arange(len(found))
            # the token at t is predicted at t - 1
            labels[row, start : end - 1] = np.where(learned[1:], found[1:].astype(np.int64), IGNORED)
            start = end
    places = np.flatnonzero((labels != IGNORED).any(axis=0))
    inputs: dict[str, torch.Tensor] = {"input_ids": torch.from_numpy(ids)}
    if blocks is None:
        inputs["attention_mask"] = torch.from_numpy((numbers > 0).astype(np.int64))
    else:
        inputs |= {"position_ids": torch.from_numpy(positions), "attention_mask": blocks(numbers)}
    chosen = labels[:, places]
    return Batch(
        inputs, torch.from_numpy(places), torch.from_numpy(chosen), int((chosen != IGNORED).sum()),
        int((numbers > 0).sum()),
    )  # fmt: skip


def block_mask(numbers: npt.NDArray[np.int64], additive: bool) -> torch.Tensor:
    """The attention mask of packed rows, (rows, 1, queries, keys): causal within each sample; padding attends to
    itself.

    Boolean, True where attended; with `additive` 0 there and the lowest float32 elsewhere.
    """
    import torch

    number = torch.from_numpy(numbers)
    length = number.shape[1]
    same = number[:, :, None] == number[:, None, :]
    visible = (same & torch.ones(length, length, dtype=torch.bool).tril())[:, None]
    if not additive:
        return visible
    return torch.zeros(visible.shape).masked_fill_(~visible, torch.finfo(torch.float32).min)
