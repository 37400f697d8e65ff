"""The global batch at any world size, and messages that name what would do."""

from __future__ import annotations

import pytest

from hpcjobs.config import TrainConfig
from hpcjobs.errors import ConfigError
from hpcjobs.training.batches import fixed, plan_batches


@pytest.mark.parametrize(
    ("train", "world", "micro", "accumulation"),
    [
        ({}, 2, 4, 1),
        ({"gradient_accumulation": 2}, 2, 2, 2),
        ({"micro_batch": 3}, 2, 3, 2),
        ({"micro_batch": 100}, 4, 2, 1),
        ({"micro_batch": 2, "gradient_accumulation": 2}, 2, 2, 2),
        ({"global_batch": 1}, 1, 1, 1),
    ],
)
def test_the_batch_is_spread(train: dict[str, int], world: int, micro: int, accumulation: int) -> None:
    plan = plan_batches(TrainConfig(**train), world)  # type: ignore[arg-type]
    assert (plan.world, plan.micro, plan.accumulation) == (world, micro, accumulation)


@pytest.mark.parametrize(
    ("train", "world", "said"),
    [
        ({"global_batch": 12}, 5, "12 does not divide by 5 ranks: set it to 10 or 15, or use 2, 3, 4, 6 ranks"),
        ({"global_batch": 2}, 4, "set it to 4, or use 1, 2 ranks"),
        ({"gradient_accumulation": 3}, 2, "gradient_accumulation 3 does not divide .*, 4: use one of 1, 2, 4"),
        ({"micro_batch": 1, "gradient_accumulation": 2}, 2, "makes 4 rounds .* says 2: leave one of them out"),
    ],
)
def test_what_does_not_divide_is_refused(train: dict[str, int], world: int, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan_batches(TrainConfig(**train), world)  # type: ignore[arg-type]


def test_what_was_planned_holds_at_another_world_size() -> None:
    """The memory that a rank needs stays what it was: the accumulation follows."""
    train = fixed(TrainConfig(global_batch=24, gradient_accumulation=2), 4)
    assert (train.micro_batch, train.gradient_accumulation) == (3, None)
    assert [plan_batches(train, world).accumulation for world in (1, 2, 4, 8)] == [8, 4, 2, 1]
