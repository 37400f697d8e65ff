"""Which definition of a metric made a score, where there has been more than one: old scores are not new ones."""

from __future__ import annotations

from collections.abc import Sequence

from hpcjobs.config import TaskConfig
from hpcjobs.metrics.base import Metric

# `normalize: [numbers]` reads exponents and U+2212 since, and keeps punctuation between digits.
_NUMBERS = 2


def revisions(task: TaskConfig, metrics: Sequence[Metric]) -> dict[str, int]:
    """The number of each metric's definition for this task, if it is not the first."""
    found = {metric.name: _revision(metric, "numbers" in task.normalize) for metric in metrics}
    return {name: number for name, number in found.items() if number > 1}


def _revision(metric: Metric, numbers: bool) -> int:
    literal = numbers and getattr(metric, "normalized", True)
    return max(int(getattr(metric, "revision", 1)), _NUMBERS if literal else 1)
