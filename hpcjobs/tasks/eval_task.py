"""What a rank runs for each row and how it scores the answer: by the config's templates, or as an lm_eval task."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Protocol

from hpcjobs.config import Config, TaskConfig
from hpcjobs.masking import reveal
from hpcjobs.metrics import Judge, Metric, Score, find_metrics
from hpcjobs.requests import Completion, Request, Row
from hpcjobs.run_folder.inputs import row_index, user_columns, user_row
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan
from hpcjobs.tasks.few_shot import Pool, read_pool
from hpcjobs.tasks.prompts import Prompts


class EvalTask(Protocol):
    """Makes requests from rows, and scores from answers. Rows are those of inputs/, with `index` and `id`."""

    def request(self, row: Row) -> Request:
        """The request of a row. Raises what the task's own code raises."""
        ...

    def judge(self, answer: Completion, row: Row) -> dict[str, Score]:
        """The scores of an answer by metric. Raises what the task's own code raises."""
        ...

    def failed(self, row: Row) -> dict[str, Score]:
        """The scores of a row without an answer."""
        ...


def eval_task_of(config: Config, columns: Iterable[str], paths: RunPaths) -> EvalTask:
    """The task of a run whose inputs/ has these columns."""
    if config.sweep is not None and (plan := Plan.read(paths.plan)).kind.program:
        from hpcjobs.tasks.sweep import SweepTask

        return SweepTask(reveal(plan.argv, os.environ), config.cluster.env, columns)
    if paths.call_facts.exists():
        return CallTask()
    if config.task.type == "lm_eval":
        from hpcjobs.tasks.lmeval.eval_task import LmEvalTask

        return LmEvalTask(paths.code, config.run.seed)
    return TemplateTask(config.task, columns, read_pool(paths, config.task.few_shot), config.run.seed)


def run_metrics(task: TaskConfig, paths: RunPaths) -> Sequence[Metric]:
    """The metrics of a run."""
    if task.type == "lm_eval":
        from hpcjobs.tasks.lmeval.fold import planned_metrics

        return planned_metrics(paths.code)
    return find_metrics(task.metrics)


class CallTask:
    """Calls of Python functions: what is called stands elsewhere, by the row's index (run_folder/calls.py)."""

    def request(self, row: Row) -> Request:
        """The request of a row."""
        return Request(index=row_index(row), id=str(row["id"]), prompt="")

    def judge(self, answer: Completion, row: Row) -> dict[str, Score]:
        """No scores."""
        return {}

    def failed(self, row: Row) -> dict[str, Score]:
        """No scores."""
        return {}


class TemplateTask:
    """A task made of the config's templates and metrics."""

    def __init__(self, task: TaskConfig, columns: Iterable[str], pool: Pool | None, seed: int) -> None:
        self._prompts, self._judge, self._seed = Prompts(task, user_columns(columns), pool), Judge(task), seed

    def request(self, row: Row) -> Request:
        """The request of a row."""
        return self._prompts.request(row, self._seed)

    def judge(self, answer: Completion, row: Row) -> dict[str, Score]:
        """The scores of an answer by metric."""
        values = user_row(row)
        return self._judge.judge(answer, self._prompts.target(values), values)

    def failed(self, row: Row) -> dict[str, Score]:
        """The scores of a row without an answer."""
        return self._judge.failed(lambda: self._prompts.target(user_row(row)))
