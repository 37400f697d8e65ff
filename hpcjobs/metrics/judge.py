"""The judge: all metrics of a task over one answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpcjobs.config import TaskConfig
from hpcjobs.metrics.base import Metric, Score
from hpcjobs.metrics.find import find_metrics
from hpcjobs.records import Completion, Target


class Judge:
    """Scores answers by each metric of a task; a ConfigError where one does not exist or cannot score such a task."""

    def __init__(self, task: TaskConfig) -> None:
        self.metrics: list[Metric] = find_metrics(task.metrics)

    @property
    def names(self) -> list[str]:
        """The metrics' names, in the config's order."""
        return [metric.name for metric in self.metrics]

    def judge(self, answer: Completion, target: Target, row: Mapping[str, Any]) -> dict[str, Score]:
        """The score of one answer by each metric; raises what a user's metric raises."""
        return {metric.name: _judged(metric, answer, target, row) for metric in self.metrics}

    def failed(self) -> dict[str, Score]:
        """The scores of a sample that ended in an error: 0 by each metric."""
        return {name: Score(0.0) for name in self.names}


def _judged(metric: Metric, answer: Completion, target: Target, row: Mapping[str, Any]) -> Score:
    if isinstance(metric, Metric):
        return metric.judge(answer, target, row)
    return Metric.judge(metric, answer, target, row)  # a user's own class, with nothing but `score`
