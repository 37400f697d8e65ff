"""Split the global batch over any number of ranks: micro batch size and gradient accumulation."""

from __future__ import annotations

from dataclasses import dataclass

from hpcjobs.config import TrainConfig
from hpcjobs.errors import ConfigError


@dataclass(frozen=True)
class BatchPlan:
    """Each of `world` ranks runs `accumulation` micro batches of at most `micro` units per step."""

    world: int
    micro: int
    accumulation: int

    def __str__(self) -> str:
        return f"{self.world} x at most {self.micro}, {self.accumulation} time{'s' if self.accumulation > 1 else ''}"


def plan_batches(train: TrainConfig, world: int) -> BatchPlan:
    """How a global batch is split over `world` ranks.

    `train.micro_batch` is the most units that a rank runs at once. Without it `train.gradient_accumulation` is the
    number of micro batches per step (default 1). Raises a ConfigError that names valid numbers.
    """
    each, rest = divmod(train.global_batch, world)
    if rest:
        sizes = [number for number in (train.global_batch - rest, train.global_batch - rest + world) if number]
        ranks = [number for number in range(1, train.global_batch + 1) if train.global_batch % number == 0]
        near = sorted(ranks, key=lambda number: abs(number - world))[:4]
        raise ConfigError(
            f"train.global_batch {train.global_batch} does not divide by {world} ranks: set it to "
            f"{' or '.join(map(str, sizes))}, or use {', '.join(map(str, sorted(near)))} ranks"
        )
    times = train.gradient_accumulation or 1
    if train.micro_batch is None and each % times:
        would = [number for number in range(1, each + 1) if each % number == 0]
        raise ConfigError(
            f"train.gradient_accumulation {times} does not divide what each of {world} ranks has of a global batch of "
            f"{train.global_batch}, {each}: use one of {', '.join(map(str, would))}"
        )
    micro = min(train.micro_batch or each // times, each)
    needed = -(-each // micro)
    if train.micro_batch and train.gradient_accumulation not in (None, needed):
        raise ConfigError(
            f"train.micro_batch {train.micro_batch} on {world} ranks makes {needed} rounds of a global batch of "
            f"{train.global_batch}, and train.gradient_accumulation says {times}: leave one of them out"
        )
    return BatchPlan(world, micro, needed)


def fixed(train: TrainConfig, world: int) -> TrainConfig:
    """The config with its micro batch set. At another world size the accumulation follows from it."""
    plan = plan_batches(train, world)
    return train.model_copy(update={"micro_batch": plan.micro, "gradient_accumulation": None})
