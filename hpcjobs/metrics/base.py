"""What a metric is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from hpcjobs.records import Target


class Metric(ABC):
    """Scores one completion; the run's value is the mean over all samples.

    A user's own metric subclasses this, or has the same `name` and `score`. `needs_target` says whether it
    can do without `task.target`.
    """

    name: ClassVar[str]
    needs_target: ClassVar[bool] = True

    @abstractmethod
    def score(self, completion: str, target: Target, row: Mapping[str, Any]) -> float:
        """The score of one sample; `target` is a text or several right ones, `row` the input row."""


def golds(target: Target) -> list[str]:
    """The right answers as a list; none where there is no target."""
    if target is None:
        return []
    return [target] if isinstance(target, str) else [str(gold) for gold in target]


def score_sample(
    metrics: Sequence[Metric], completion: str, target: Target, row: Mapping[str, Any]
) -> dict[str, float]:
    """The scores of one completion by each metric; raises what a user's metric raises."""
    return {metric.name: float(metric.score(completion, target, row)) for metric in metrics}
