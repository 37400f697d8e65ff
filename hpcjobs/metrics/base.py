"""The base class of metrics."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import pyarrow as pa

from hpcjobs.metrics.fold import Fold, MeanFold, finite
from hpcjobs.metrics.settings import Settings
from hpcjobs.requests import Completion, MetricError, Row, SampleError, Target


@dataclass(frozen=True, slots=True)
class Score:
    """A sample's score. `statistics` are numbers or a text, if the run's value is not the mean of the scores.

    `error` is why the metric has none; `value` is NaN then.
    """

    value: float
    statistics: tuple[float, ...] | str | None = None
    error: SampleError | None = None

    @property
    def number(self) -> float | None:
        """The value; None if it is not finite."""
        return finite(self.value)

    @classmethod
    def none(cls, error: BaseException) -> Score:
        """No score, because the metric raised `error`."""
        return cls(math.nan, None, SampleError.of(error))


class Metric:
    """Scores one answer; the run's value is the mean over all samples.

    A user's own metric subclasses this, or has the same `name` and `score`. `needs_target`: it needs `task.target`.
    `lower_is_better`: lower values are better. `tasks`: the task types it can score. `normalized`: `task.normalize` is
    applied before it. `binary`: scores are 0 or 1. `bounds`: the least and greatest score; the mean's interval is cut
    there. `revision` rises with each change of what it says of the same answer. `settings`: the class of its options,
    if it has any. If the run's value is not a mean, `statistics` is the Arrow type of what `judge` adds to each score,
    and `fold` makes the value from it. `skips_errors`: a sample that ended in an error is in none of its values.
    """

    name: str
    needs_target: bool = True
    lower_is_better: bool = False
    revision: int = 1
    tasks: ClassVar[tuple[str, ...]] = ("generate",)
    normalized: bool = True
    binary: ClassVar[bool] = False
    bounds: ClassVar[tuple[float, float] | None] = None
    statistics: ClassVar[pa.DataType | None] = None
    skips_errors: ClassVar[bool] = False
    settings: ClassVar[type[Settings] | None] = None

    @classmethod
    def configured(cls, name: str, settings: Settings) -> Self:
        """The metric with options, under its whole name. Raises what `use` raises."""
        metric = cls()
        metric.name = name
        metric.use(settings)
        return metric

    def use(self, settings: Settings) -> None:
        """Use these options. May raise anything: a library that an option needs may be missing."""

    def score(self, completion: str, target: Target, row: Row) -> float:
        """The score of one sample. `target` is a text or several correct ones, `row` the input row."""
        raise NotImplementedError(f"{self.name} has no score of a text alone")

    def judge(self, answer: Completion, target: Target, row: Row) -> Score:
        """The score of one answer; the mean of the scores if there are several (`answer.texts`)."""
        texts = texts_of(answer)
        return Score(sum(float(self.score(text, target, row)) for text in texts) / len(texts))

    def failed(self, target: Target) -> Score:
        """The score of a sample that has no completion: the worst there is. `target` may be None."""
        return Score(worst_score(self))

    def refuse(self, target: Target) -> str:
        """Why no answer can equal this target, such as a text for a metric of numbers; '' if one can."""
        return ""

    def vote(self, text: str) -> Hashable | None:
        """A key that is equal for answers that count as the same in a majority vote; None for an empty answer."""
        return text.strip() or None

    def check(self, repeats: int) -> None:
        """Raise a ConfigError if the metric cannot be computed from `repeats` answers per prompt."""

    def fold(self) -> Fold:
        """A new fold, which makes the run's value from the samples' scores."""
        return MeanFold(bounds_of(self))


def metric_errors(scores: Mapping[str, Score]) -> list[MetricError]:
    """The errors of metrics that have no score of a sample."""
    failed = ((name, score.error) for name, score in scores.items())
    return [MetricError(name, error.type, error.message) for name, error in failed if error is not None]


def leaves_errors_out(metric: object) -> bool:
    """Whether samples that have no completion are left out of this metric, which may be a user's class."""
    return math.isnan(failed_score(metric, None).value)


def failed_score(metric: object, target: Target) -> Score:
    """The score of a sample that has no completion, by any metric."""
    score: Score = metric.failed(target) if hasattr(metric, "failed") else Score(worst_score(metric))
    return score


def bounds_of(metric: object) -> tuple[float, float] | None:
    """The least and greatest score of a metric, which may be a user's class; None if unknown."""
    bounds: tuple[float, float] | None = getattr(metric, "bounds", None)
    return (0.0, 1.0) if bounds is None and getattr(metric, "binary", False) else bounds


def worst_score(metric: object) -> float:
    """What an error scores: 0; where lower is better the upper bound, or NaN (not counted) if there is none."""
    if not getattr(metric, "lower_is_better", False):
        return 0.0
    bounds = bounds_of(metric)
    return math.nan if bounds is None else bounds[1]


def texts_of(answer: Completion) -> tuple[str, ...]:
    """All answers to one prompt, one or several."""
    return answer.texts or (answer.text,)


def golds(target: Target) -> list[str]:
    """The correct answers as a list; empty if there is no target."""
    if target is None:
        return []
    return [str(gold) for gold in target] if isinstance(target, list) else [str(target)]
