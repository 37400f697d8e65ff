"""At plan time: load the task as ranks and merge will, and see that it scores as the planned one does."""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpcjobs.errors import ConfigError
from hpcjobs.requests import Completion, Likelihood
from hpcjobs.tasks.lmeval.codec import encode
from hpcjobs.tasks.lmeval.instances import PlannedDocument
from hpcjobs.tasks.lmeval.judge import LmEvalJudge
from hpcjobs.tasks.lmeval.seeded import seeded
from hpcjobs.tasks.lmeval.task_data import TaskData
from hpcjobs.tasks.lmeval.tasks import LoadedTask, PlannedTask, load_copy
from hpcjobs.tasks.lmeval.user_files import UserTask, with_includes

if TYPE_CHECKING:
    from types import ModuleType

    from lm_eval.api.task import Task

# Documents of each task that are scored with made-up answers.
_TRIED = 4
SCORED = {"loglikelihood", "multiple_choice"}


class Imports:
    """What is imported before the user's task is loaded, so that its modules can be forgotten."""

    def __init__(self) -> None:
        self._modules, self._path = set(sys.modules), list(sys.path)

    @contextlib.contextmanager
    def forgotten(self) -> Iterator[None]:
        """Within the block, as on a rank, there are no modules from folders that the task added to `sys.path`."""
        mine = {name: module for name, module in sys.modules.items() if self._is_users(name, module)}
        path, sys.path[:] = list(sys.path), self._path
        for name in mine:
            del sys.modules[name]
        try:
            yield
        finally:
            for name in [name for name, module in sys.modules.items() if self._is_users(name, module)]:
                del sys.modules[name]
            sys.modules.update(mine)
            sys.path[:] = path

    def _is_users(self, name: str, module: ModuleType) -> bool:
        file = getattr(module, "__file__", None)
        return name not in self._modules and file is not None and not file.startswith(tuple(filter(None, self._path)))


def rehearse(
    loaded: LoadedTask, rows: Sequence[PlannedDocument], planned: PlannedTask, data: TaskData, user: UserTask
) -> None:
    """Raise a ConfigError if the task that ranks load from its copy is another one than `loaded`."""
    with tempfile.TemporaryDirectory(prefix="hpcjobs-") as folder:
        copy = Path(folder).resolve()
        user.files(copy).write(copy)
        try:
            again = load_copy(planned, data, copy)
        except ConfigError as error:
            raise ConfigError(f"{error}; ranks load a copy of {user.top}, and not what lies outside of it") from error
        _check_includes(user, copy)
        _check_same(loaded, again, rows)


def _check_includes(user: UserTask, copy: Path) -> None:
    for yaml in user.yamls:
        for path in with_includes([copy / user.place(yaml)]):
            if not path.is_relative_to(copy):
                raise ConfigError(f"task.name: {yaml} includes {path} by its full path: write it relative to the file")


def _check_same(loaded: LoadedTask, again: LoadedTask, rows: Sequence[PlannedDocument]) -> None:
    for name, task in loaded.tasks.items():
        other = again.tasks[name]
        for each in ("features", "multiple_input", "multiple_target"):
            if getattr(task, each, None) != getattr(other, each, None):
                raise ConfigError(f"task.name: {name} has other {each} when it is loaded again from the same rows")
        some = [row for row in rows if row["task"] == name][:_TRIED]
        here = [_results(loaded, row) for row in some]
        # The merge aggregates and has scored nothing; ranks score documents in any order.
        values = _values(task, here), _values(other, here)
        there = [_results(again, row) for row in reversed(some)][::-1]
        if values[0] != values[1] or encode(here) != encode(there):
            raise ConfigError(
                f"task.name: the code of {name} scores by what it kept from other documents or from prompts, and ranks "
                "score each document alone: keep such things in process_docs"
            )


def _results(loaded: LoadedTask, row: PlannedDocument) -> list[tuple[tuple[str, str], object]]:
    """The results of a made-up answer; empty if the task's code fails on it."""
    with seeded(), contextlib.suppress(Exception):
        return list(LmEvalJudge(loaded, ()).results(made_up(row), row["task"], row["doc"], row["requests"]).items())
    return []


def _values(task: Task, results: Sequence[list[tuple[tuple[str, str], object]]]) -> str:
    """What the task's own aggregations make of results, as text."""
    found = dict[str, list[object]]()
    for (metric, _), item in (pair for document in results for pair in document):
        found.setdefault(metric, []).append(item)
    return repr({metric: _value(task, metric, items) for metric, items in found.items()})


def _value(task: Task, metric: str, items: list[object]) -> object:
    with seeded(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            return task.aggregation()[metric](items)
        except Exception as error:
            return type(error).__name__


def made_up(row: PlannedDocument) -> Completion:
    """An answer to a document that nobody gave."""
    requests = row["requests"]
    if requests[0]["type"] in SCORED:
        count = len(requests)
        likelihood = Likelihood(tuple(-1.0 - n for n in range(count)), (False,) * count, (1,) * count)
    else:
        likelihood = Likelihood((-1.0,), (False,), (1,))
    return Completion(
        index=0, text="1", finish_reason="stop", texts=("1",) * int(requests[0]["repeats"] or 1), likelihood=likelihood
    )
