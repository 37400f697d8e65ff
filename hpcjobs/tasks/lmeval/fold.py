"""In the merge: lm_eval's own aggregation and standard error over all samples, in input order."""

from __future__ import annotations

import array
import contextlib
import io
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import pyarrow as pa

from hpcjobs.metrics import Metric, Score
from hpcjobs.metrics.bootstrap import Floats
from hpcjobs.requests import Target
from hpcjobs.run_folder.metrics_file import Summary
from hpcjobs.tasks.lmeval.codec import decode
from hpcjobs.tasks.lmeval.tasks import LoadedTask, MetricName, PlannedTask, load_planned

if TYPE_CHECKING:
    from lm_eval.api.group import Group
    from lm_eval.api.task import Task

# Resamples for standard errors without a formula: lm_eval's `bootstrap_iters`, whose default of 100,000 takes minutes
# for 30 samples of some metrics. For BLEU and similar metrics the most that lm_eval uses.
_RESAMPLES, _SLOW_RESAMPLES = 1000, 100
_SLOW = {"bleu", "chrf", "chrf++", "ter"}


class _Value(TypedDict):
    """lm_eval's aggregate of a task's items."""

    value: float | None
    stderr: float | None
    n: int


class LazyTask:
    """The planned task of a run, loaded on first use, or `loaded`."""

    def __init__(self, folder: Path, loaded: LoadedTask | None = None) -> None:
        self._folder, self._loaded = folder, loaded

    @property
    def loaded(self) -> LoadedTask:
        """The loaded task."""
        if self._loaded is None:
            self._loaded = load_planned(self._folder)
        return self._loaded


class LmEvalMetric(Metric):
    """One `metric,filter` of the planned task. Ranks score with `LmEvalJudge`, all metrics at once."""

    needs_target = False
    skips_errors = True
    tasks = ("lm_eval",)
    statistics = pa.string()

    def __init__(self, name: MetricName, task: LazyTask) -> None:
        self.name, self._name, self._task = name.text, name, task

    def failed(self, target: Target) -> Score:
        """No score."""
        return Score(math.nan)

    def fold(self) -> LmEvalFold:
        """A fold that aggregates as lm_eval does."""
        return LmEvalFold(self._name, self._task)


def planned_metrics(code: Path, loaded: LoadedTask | None = None) -> list[Metric]:
    """The metrics of the run with this code/ folder, by the task `loaded`.

    Without it the planned task is loaded, and lm_eval imported, when one of them is folded.
    """
    lazy = LazyTask(code, loaded)
    return [LmEvalMetric(name, lazy) for name in PlannedTask.read(code).metrics]


class LmEvalFold:
    """Keeps the items of one metric by task (8 bytes per number), and aggregates them at the end."""

    def __init__(self, name: MetricName, task: LazyTask) -> None:
        self._name, self._task = name, task
        self._items: dict[int, _Items] = {}
        self._tasks: dict[str, _Value] | None = None
        self._notes: list[str] = []

    def add(self, scores: Floats, statistics: pa.Array | None = None) -> None:
        """Add a batch, in input order."""
        texts = [None] * len(scores) if statistics is None else statistics.to_pylist()
        for score, text in zip(scores.tolist(), texts, strict=True):
            if text is not None:
                place, item = decode(text)
                self._items.setdefault(place, _Items()).append(item)
            elif not math.isnan(score):
                self._items.setdefault(0, _Items()).append(score)

    def summary(self) -> Summary:
        """value, stderr, ci95, n of the task; with several tasks those of their group, if it has an aggregation."""
        loaded = self._task.loaded
        lower = [task.higher_is_better().get(self._name.metric) is False for task in loaded.tasks.values()]
        made = self._made(loaded)
        return {**made, "lower_is_better": True} if any(lower) else made

    def _made(self, loaded: LoadedTask) -> Summary:
        found = self._values(loaded)
        if len(found) == 1:
            return _with_interval(*found.values())
        if loaded.group is None:
            return _with_interval({"value": None, "stderr": None, "n": sum(one["n"] for one in found.values())})
        return self._group(loaded.group, found)

    def subgroups(self) -> dict[str, Summary]:
        """The same of the groups within the group, by name, if they have an aggregation."""
        loaded = self._task.loaded
        inner = {name: group for name, group in loaded.groups.items() if group is not loaded.group}
        found = {name: self._group(group, self._values(loaded)) for name, group in inner.items()}
        return {name: one for name, one in found.items() if one["value"] is not None}

    def notes(self) -> list[str]:
        """What is to be said of the values, once there are any: why one is none."""
        return list(dict.fromkeys(self._notes))

    def _values(self, loaded: LoadedTask) -> dict[str, _Value]:
        if self._tasks is None:
            names = sorted(loaded.tasks)
            self._tasks = {
                names[place]: self._of(names[place], loaded.tasks[names[place]], kept.all())
                for place, kept in self._items.items()
            }
        return self._tasks

    def _of(self, name: str, task: Task, items: list[object]) -> _Value:
        """lm_eval's aggregate of a task's items. A function of the task that raises costs this value alone."""
        from lm_eval.api.metrics import mean, stderr_for_metric

        function = task.aggregation().get(self._name.aggregation, mean)
        value = self._tried(name, "aggregation", lambda: function(items))
        stderr = None
        if value is not None and len(items) > 1:
            resamples = _SLOW_RESAMPLES if self._name.metric in _SLOW else _RESAMPLES
            error = stderr_for_metric(function, resamples)
            stderr = None if error is None else self._tried(name, "standard error", lambda: error(items))
        return {"value": value, "stderr": stderr, "n": len(items)}

    def _tried(self, task: str, what: str, function: Callable[[], object]) -> float | None:
        try:
            with _quiet():
                result = function()
        except Exception as error:
            self._note(task, what, f"raises {type(error).__name__}: {error}")
            return None
        number = _number(result)
        if number is None:
            self._note(task, what, f"gives {result!r}"[:200] + ", which is no number")
        return number

    def _note(self, task: str, what: str, problem: str) -> None:
        self._notes.append(f"{self._name.text}: its {what} over {task} {problem}")

    def _group(self, group: Group, tasks: Mapping[str, _Value]) -> Summary:
        """The group's own aggregation of its tasks; no value for a group without aggregation, or if a task has none."""
        names = [task.task_name for task in group.get_all_tasks() if task.task_name in tasks]
        total = sum(tasks[name]["n"] for name in names)
        key, error = self._name.text, f"{self._name.metric}_stderr,{self._name.filter}"
        if any(tasks[name]["value"] is None for name in names):
            return _with_interval({"value": None, "stderr": None, "n": total})
        known = {
            name: {key: one["value"], error: "N/A" if one["stderr"] is None else one["stderr"], "sample_len": one["n"]}
            for name, one in tasks.items()
        }
        with _quiet():
            found = group.aggregate(known)
        return _with_interval({"value": _number(found.get(key)), "stderr": _number(found.get(error)), "n": total})


class _Items:
    """The items that lm_eval aggregates, in order: 8 bytes per float; a list once there is another type."""

    def __init__(self) -> None:
        self._numbers = array.array("d")
        self._mixed: list[object] | None = None

    def append(self, item: object) -> None:
        if self._mixed is None and type(item) is float:
            self._numbers.append(item)
            return
        if self._mixed is None:
            self._mixed, self._numbers = list(self._numbers), array.array("d")
        self._mixed.append(item)

    def all(self) -> list[object]:
        """The items."""
        return list(self._numbers) if self._mixed is None else list(self._mixed)


def _with_interval(one: _Value) -> Summary:
    value, stderr = one["value"], one["stderr"]
    interval = None if value is None or stderr is None else [value - 1.96 * stderr, value + 1.96 * stderr]
    return {"value": value, "stderr": stderr, "ci95": interval, "n": one["n"]}


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):  # "N/A", or a metric that gives several
        return None
    return number if math.isfinite(number) else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """One process and no output: lm_eval would bootstrap with one process per core, with progress bars."""
    before = os.environ.get("DISABLE_MULTIPROC")
    os.environ["DISABLE_MULTIPROC"] = "1"
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        if before is None:
            del os.environ["DISABLE_MULTIPROC"]
        else:
            os.environ["DISABLE_MULTIPROC"] = before
