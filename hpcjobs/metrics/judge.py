"""The judge: score an answer by all metrics of a task."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

from hpcjobs.config import TaskConfig
from hpcjobs.errors import ConfigError
from hpcjobs.metrics.base import Metric, Score, failed_score
from hpcjobs.metrics.extract import extract
from hpcjobs.metrics.normalize import normalizer
from hpcjobs.metrics.registry import BUILT_IN, find_metrics
from hpcjobs.plugins import contained, timed
from hpcjobs.requests import Completion, Row, Target


class Judge:
    """Scores answers by each metric of a task.

    Raises a ConfigError if a metric does not exist or cannot score this type of task.
    """

    def __init__(self, task: TaskConfig) -> None:
        self.metrics: list[Metric] = find_metrics(task.metrics, task.type)
        for metric in self.metrics:
            _check(metric, task)
        _check_cleaning(self.metrics, task)
        self._extract = re.compile(task.extract) if task.extract is not None else None
        self._normal = normalizer(task.normalize) if task.normalize else None

    @property
    def names(self) -> list[str]:
        """The names of the metrics, in the config's order."""
        return [metric.name for metric in self.metrics]

    def judge(self, answer: Completion, target: Target, row: Row) -> dict[str, Score]:
        """The score of one answer by each metric. One that raises has none, and its error; the others have theirs.

        `task.extract` is applied first; `task.normalize` for metrics that compare texts literally.
        """
        pattern, normal = self._extract, self._normal
        if pattern is not None:
            answer = _each(answer, lambda text: extract(pattern, text))
        plain, wanted = answer, target
        if normal is not None:
            plain, wanted = _each(answer, normal), _normal_target(target, normal)
        return {
            metric.name: _judged(metric, plain, wanted, row)
            if getattr(metric, "normalized", True)
            else _judged(metric, answer, target, row)
            for metric in self.metrics
        }

    def failed(self, target: Callable[[], Target] = lambda: None) -> dict[str, Score]:
        """The scores of a sample that has no completion: the worst of each metric that has a worst score.

        `target` returns the target if possible; corpus metrics need it to count the sample as an empty answer.
        """
        try:
            known = target()
        except Exception:  # the template may be what failed
            known = None
        return {metric.name: failed_score(metric, known) for metric in self.metrics}

    def undecided(self, error: BaseException) -> dict[str, Score]:
        """No score by any metric, for a sample whose target could not be made."""
        return {metric.name: Score.none(error) for metric in self.metrics}


def _check(metric: Metric, task: TaskConfig) -> None:
    tasks = getattr(metric, "tasks", ("generate", "choice"))
    if task.type not in tasks:
        fitting = [name for name, kind in BUILT_IN.items() if task.type in kind.tasks]
        hint = f": those are {', '.join(fitting)}" if fitting else ""
        raise ConfigError(f"task.metrics: {metric.name!r} does not score tasks of type {task.type}{hint}")
    if isinstance(metric, Metric):
        metric.check(task.repeats)


def _check_cleaning(metrics: list[Metric], task: TaskConfig) -> None:
    """Raise a ConfigError for `extract` or `normalize` that would have no effect."""
    for key in ("extract", "normalize"):
        if getattr(task, key) and task.type != "generate":
            raise ConfigError(f"task.{key} is for answers in words: task.type is {task.type}, which has none")
    if task.normalize and metrics and not any(getattr(metric, "normalized", True) for metric in metrics):
        names = ", ".join(metric.name for metric in metrics)
        raise ConfigError(f"task.normalize is set, and {names} compare by their own rules: add exact_match or contains")


def _each(answer: Completion, change: Callable[[str], str]) -> Completion:
    return dataclasses.replace(answer, text=change(answer.text), texts=tuple(map(change, answer.texts)))


def _normal_target(target: Target, normal: Callable[[str], str]) -> Target:
    if isinstance(target, list):
        return [normal(str(gold)) for gold in target]
    return target if target is None else normal(str(target))


def _judged(metric: Metric, answer: Completion, target: Target, row: Row) -> Score:
    try:
        with contained(), timed(f"metric {metric.name}"):
            if isinstance(metric, Metric):
                return metric.judge(answer, target, row)
            return Metric.judge(metric, answer, target, row)  # a user's own class, with nothing but `score`
    except Exception as error:  # a user's metric may raise anything
        return Score.none(error)
