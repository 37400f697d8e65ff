"""What a metric is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from hpcjobs.metrics.fold import Fold, MeanFold
from hpcjobs.records import Completion, Target


@dataclass(frozen=True, slots=True)
class Score:
    """A sample's score, and what the run's value is made of where it is no mean of scores: sums, or a text."""

    value: float
    statistics: tuple[float, ...] | str | None = None


class Metric(ABC):
    """Scores one completion; the run's value is the mean over all samples.

    A user's own metric subclasses this, or has the same `name` and `score`. `needs_target` says whether it
    can do without `task.target`; `tasks` which task types it can score. Where the run's value is no mean,
    `statistics` is the Arrow type of what `judge` adds to each score, and `fold` makes the value of them.
    """

    name: ClassVar[str]
    needs_target: ClassVar[bool] = True
    tasks: ClassVar[tuple[str, ...]] = ("generate",)
    statistics: ClassVar[pa.DataType | None] = None

    @abstractmethod
    def score(self, completion: str, target: Target, row: Mapping[str, Any]) -> float:
        """The score of one sample; `target` is a text or several right ones, `row` the input row."""

    def judge(self, answer: Completion, target: Target, row: Mapping[str, Any]) -> Score:
        """The score of one answer; of several to one prompt (`answer.texts`) the mean of their scores."""
        texts = answer.texts or (answer.text,)
        return Score(sum(float(self.score(text, target, row)) for text in texts) / len(texts))

    def fold(self) -> Fold:
        """What makes the run's value of the samples' scores."""
        return MeanFold()


def golds(target: Target) -> list[str]:
    """The right answers as a list; none where there is no target."""
    if target is None:
        return []
    return [str(gold) for gold in target] if isinstance(target, list) else [str(target)]
