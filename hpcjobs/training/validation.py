"""The loss on validation samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hpcjobs.training.batches import BatchPlan
from hpcjobs.training.checkpoints.state import State
from hpcjobs.training.data.collate import collate
from hpcjobs.training.data.order import Share, rounds
from hpcjobs.training.data.tokens import TokenFile
from hpcjobs.training.loss import Loss


class Validation:
    """The validation samples, split over the ranks, longest first."""

    def __init__(self, tokens: TokenFile, batches: BatchPlan, rank: int, pad: int, border: int | None = None) -> None:
        self._tokens, self._pad, self._border = tokens, pad, border
        self._share = Share(rank, batches.world, batches.micro)

    def loss(self, loss: Loss, state: State, summed: Callable[[Sequence[float]], list[float]]) -> float:
        """The mean loss of all trained tokens. All ranks run the same number of batches, because FSDP uses collectives.
        """
        import torch

        model = state.model if state.sharded else state.plain
        model.eval()
        total, targets = 0.0, 0
        with torch.no_grad():
            for part, counts in self._rounds():
                batch = collate(part, self._tokens, self._pad)
                found = float(loss(model, batch))
                total, targets = total + counts * found, targets + counts * batch.targets
        model.train()
        sums = summed([total, float(targets)])
        return sums[0] / sums[1]

    def _rounds(self) -> list[tuple[list[list[int]], int]]:
        """(units, 1) per round; a rank without samples in a round runs its first sample with weight 0."""
        order = sorted(range(len(self._tokens)), key=lambda n: -int(self._tokens.lengths[n]))
        width = self._share.world * self._share.micro
        found: list[tuple[list[list[int]], int]] = []
        for part in rounds(order, self._tokens.lengths, width, self._border):
            mine = part[self._share.rank :: self._share.world]
            found.append(([[n] for n in mine or part[:1]], int(bool(mine))))
        return found
