"""What a rank asks of each row and how it scores the answer: by the config's templates, or as an lm_eval task does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from hpcjobs.config import Config, TaskConfig
from hpcjobs.metrics import Judge, Metric, Score, find_metrics
from hpcjobs.requests import Completion, Request, Row
from hpcjobs.run_folder.inputs import user_columns, user_row
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.tasks.few_shot import Pool, read_pool
from hpcjobs.tasks.prompts import Prompts


class Asker(Protocol):
    """Rows to requests, and answers to scores; rows are those of inputs/, `index` and `id` included."""

    def request(self, row: Row) -> Request:
        """What is asked about a row; raises what the task's own code raises."""
        ...

    def judge(self, answer: Completion, row: Row) -> dict[str, Score]:
        """The scores of an answer by metric; raises what a metric raises."""
        ...

    def failed(self, row: Row) -> dict[str, Score]:
        """The scores of a row that has no answer."""
        ...


def asker_of(config: Config, columns: Iterable[str], paths: RunPaths) -> Asker:
    """The asker of a run, with the columns of its inputs/."""
    if config.task.type == "lm_eval":
        from hpcjobs.tasks.lmeval.asker import LmEvalAsker

        return LmEvalAsker(paths.code, config.run.seed)
    return TemplateAsker(config.task, columns, read_pool(paths, config.task.few_shot), config.run.seed)


def run_metrics(task: TaskConfig, paths: RunPaths) -> Sequence[Metric]:
    """The metrics of a run."""
    if task.type == "lm_eval":
        from hpcjobs.tasks.lmeval.fold import planned_metrics

        return planned_metrics(paths.code)
    return find_metrics(task.metrics)


class TemplateAsker:
    """Asks by the config's templates, and scores by its metrics."""

    def __init__(self, task: TaskConfig, columns: Iterable[str], pool: Pool | None, seed: int) -> None:
        self._prompts, self._judge, self._seed = Prompts(task, user_columns(columns), pool), Judge(task), seed

    def request(self, row: Row) -> Request:
        return self._prompts.request(row, self._seed)

    def judge(self, answer: Completion, row: Row) -> dict[str, Score]:
        asked = user_row(row)
        return self._judge.judge(answer, self._prompts.target(asked), asked)

    def failed(self, row: Row) -> dict[str, Score]:
        return self._judge.failed(lambda: self._prompts.target(user_row(row)))
