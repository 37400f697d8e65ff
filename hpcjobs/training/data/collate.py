"""Units to tensors: padded on the right, positions and attention kept inside each sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hpcjobs.training.data.tokens import TokenFile

if TYPE_CHECKING:
    import torch

# What cross entropy passes over.
IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """`inputs` are the model's arguments. Logits are wanted at `places` (sorted, the same for all rows); there the
    right tokens are `labels` (rows, places), IGNORED where nothing is learned. `targets` counts what is learned,
    `tokens` all without padding."""

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
    """A batch of units, on CPU. `blocks` makes the mask of packed rows (`block_mask`), None where none is packed."""
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
    """Who sees whom, (rows, 1, queries, keys): tokens of the same sample, not later ones; padding sees itself.

    True where it is seen; `additive`, for attention that adds its mask: 0 there, and the lowest float32 elsewhere.
    """
    import torch

    number = torch.from_numpy(numbers)
    length = number.shape[1]
    same = number[:, :, None] == number[:, None, :]
    seen = (same & torch.ones(length, length, dtype=torch.bool).tril())[:, None]
    if not additive:
        return seen
    return torch.zeros(seen.shape).masked_fill_(~seen, torch.finfo(torch.float32).min)
