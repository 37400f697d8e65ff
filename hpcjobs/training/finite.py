"""Numbers that are none end a training: the loss, the gradient norm, the weights, the validation loss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpcjobs.errors import HpcJobsError

if TYPE_CHECKING:
    import torch


class NotFiniteError(HpcJobsError):
    """A training whose numbers are none; a restart would meet the same."""

    fatal = True


@dataclass(frozen=True)
class Finite:
    """Refuses numbers that are not finite at `step`; `saved` is the step of the last checkpoint, 0 if there is none."""

    step: int
    saved: int

    def check(self, name: str, value: float) -> None:
        """Raise a NotFiniteError that names the number and the step."""
        if not math.isfinite(value):
            raise NotFiniteError(f"{name} of step {self.step} is {value}: {self._advice}")

    def check_weights(self, names: Sequence[str], bad: Sequence[float]) -> None:
        """The same for weights; `bad` has how many values of each are not finite, over all ranks."""
        wrong = [name for name, count in zip(names, bad, strict=True) if count]
        if wrong:
            more = f", {len(wrong)} of {len(names)} weights are like it" if len(wrong) > 1 else ""
            raise NotFiniteError(
                f"after step {self.step} {wrong[0]} has values that are no numbers{more}: {self._advice}"
            )

    @property
    def _advice(self) -> str:
        kept = f"the last checkpoint is of step {self.saved}" if self.saved else "there is no checkpoint yet"
        return f"lower train.learning_rate, or look at its samples; {kept}"


def not_finite(weights: Sequence[torch.Tensor]) -> list[float]:
    """How many values of each weight are not finite; of a sharded weight those of this rank."""
    import torch

    local = [weight.to_local() if hasattr(weight, "to_local") else weight for weight in weights]
    with torch.no_grad():
        counts = [torch.isfinite(weight.detach()).logical_not().sum().float() for weight in local]
        found: list[float] = torch.stack(counts).tolist() if counts else []
    return found
