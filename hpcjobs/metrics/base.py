"""What a metric is."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from hpcjobs.metrics.fold import Fold, MeanFold, finite
from hpcjobs.requests import Completion, Row, Target


@dataclass(frozen=True, slots=True)
class Score:
    """A sample's score, and what the run's value is made of where it is no mean of scores: sums, or a text."""

    value: float
    statistics: tuple[float, ...] | str | None = None

    @property
    def number(self) -> float | None:
        """The value; None where it is no finite number."""
        return finite(self.value)


class Metric:
    """Scores one answer; the run's value is the mean over all samples.

    A user's own metric subclasses this, or has the same `name` and `score`. `needs_target` says whether it can do
    without `task.target`; `lower_is_better` which way is worse; `tasks` which task types it can score; `normalized`
    whether `task.normalize` is applied before it; `binary` that a score is 0 or 1; `bounds` between which two numbers a
    score is, where its mean's interval is cut. Where the run's value is no mean, `statistics` is the Arrow type of what
    `judge` adds to each score, and `fold` makes the value of them.
    """

    name: str
    needs_target: bool = True
    lower_is_better: ClassVar[bool] = False
    tasks: ClassVar[tuple[str, ...]] = ("generate",)
    normalized: bool = True
    binary: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float] | None] = None
    statistics: ClassVar[pa.DataType | None] = None

    def score(self, completion: str, target: Target, row: Row) -> float:
        """The score of one sample; `target` is a text or several right ones, `row` the input row."""
        raise NotImplementedError(f"{self.name} has no score of a text alone")

    def judge(self, answer: Completion, target: Target, row: Row) -> Score:
        """The score of one answer; of several to one prompt (`answer.texts`) the mean of their scores."""
        texts = texts_of(answer)
        return Score(sum(float(self.score(text, target, row)) for text in texts) / len(texts))

    def failed(self, target: Target) -> Score:
        """The score of a sample that ended in an error; `target` is None where it is not known either."""
        return Score(0.0)

    def vote(self, text: str) -> Hashable | None:
        """What two answers have in common if they count as the same one; None for an answer that says nothing."""
        return text.strip() or None

    def check(self, repeats: int) -> None:
        """Raise a ConfigError if it cannot be had from so many answers a prompt."""

    def fold(self) -> Fold:
        """What makes the run's value of the samples' scores."""
        return MeanFold(bounds_of(self))


def bounds_of(metric: object) -> tuple[float, float] | None:
    """The least and the greatest score of a metric, be it a user's own class; None where that is not known."""
    bounds: tuple[float, float] | None = getattr(metric, "bounds", None)
    return (0.0, 1.0) if bounds is None and getattr(metric, "binary", False) else bounds


def texts_of(answer: Completion) -> tuple[str, ...]:
    """All answers to one prompt, one or several."""
    return answer.texts or (answer.text,)


def golds(target: Target) -> list[str]:
    """The right answers as a list; none where there is no target."""
    if target is None:
        return []
    return [str(gold) for gold in target] if isinstance(target, list) else [str(target)]
