"""Collate units into tensors: padded on the right, positions and attention separate for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from hpcjobs.training.data.tokens import Ints

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


class Samples(Protocol):
    """Samples to collate, such as a TokenFile's: `lengths` in tokens."""

    lengths: Ints

    def sample(self, number: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        """(ids, trained) of one sample."""


def collate(units: Sequence[Sequence[int]], samples: Samples, pad: int, packed: bool = False) -> Batch:
    """A batch of units, on CPU.

    With `packed`, it has positions that begin at 0 with each sample and each token of padding, and no attention mask:
    so transformers tells the samples of a row apart (`masking_utils.find_packed_sequence_indices`).
    """
    import torch

    width = max(int(samples.lengths[list(unit)].sum()) for unit in units)
    ids = np.full((len(units), width), pad, np.int64)
    labels = np.full((len(units), width), IGNORED, np.int64)
    positions = np.zeros((len(units), width), np.int64)
    real = np.zeros((len(units), width), np.int64)
    for row, unit in enumerate(units):
        start = 0
        for sample in unit:
            found, learned = samples.sample(sample)
            end = start + len(found)
            ids[row, start:end], real[row, start:end] = found, 1
            positions[row, start:end] = np.arange(len(found))
            # the token at t is predicted at t - 1
            labels[row, start : end - 1] = np.where(learned[1:], found[1:].astype(np.int64), IGNORED)
            start = end
    places = np.flatnonzero((labels != IGNORED).any(axis=0))
    more = {"position_ids": positions} if packed else {"attention_mask": real}
    inputs = {name: torch.from_numpy(value) for name, value in {"input_ids": ids, **more}.items()}
    chosen = labels[:, places]
    return Batch(
        inputs, torch.from_numpy(places), torch.from_numpy(chosen), int((chosen != IGNORED).sum()), int(real.sum())
    )
