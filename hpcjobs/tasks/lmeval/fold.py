"""In the merge: lm_eval's own aggregation and standard error over all samples, in input order."""

from __future__ import annotations

import array
import contextlib
import io
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import pyarrow as pa

from hpcjobs.metrics import Metric
from hpcjobs.metrics.bootstrap import Floats
from hpcjobs.run_folder.metrics_file import Summary
from hpcjobs.tasks.lmeval.codec import decode
from hpcjobs.tasks.lmeval.tasks import LoadedTask, MetricName, PlannedTask, load_planned

if TYPE_CHECKING:
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
    """The planned task of a run, loaded on first use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loaded: LoadedTask | None = None

    @property
    def loaded(self) -> LoadedTask:
        """The loaded task."""
        if self._loaded is None:
            self._loaded = load_planned(self._folder)
        return self._loaded


class LmEvalMetric(Metric):
    """One `metric,filter` of the planned task. Ranks score with `LmEvalJudge`, all metrics at once."""

    needs_target = False
    tasks = ("lm_eval",)
    statistics = pa.string()

    def __init__(self, name: MetricName, task: LazyTask) -> None:
        self.name, self._name, self._task = name.text, name, task

    def fold(self) -> LmEvalFold:
        """A fold that aggregates as lm_eval does."""
        return LmEvalFold(self._name, self._task)


def planned_metrics(code: Path) -> list[Metric]:
    """The metrics of the run with this code/ folder. lm_eval is imported only when one of them is folded."""
    lazy = LazyTask(code)
    return [LmEvalMetric(name, lazy) for name in PlannedTask.read(code).metrics]


class LmEvalFold:
    """Keeps the items of one metric by task (8 bytes per number), and aggregates them at the end."""

    def __init__(self, name: MetricName, task: LazyTask) -> None:
        self._name, self._task = name, task
        self._items: dict[int, _Items] = {}

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
        names = sorted(loaded.tasks)
        found = {names[place]: self._of(loaded.tasks[names[place]], kept) for place, kept in self._items.items()}
        if len(found) == 1:
            return _with_interval(*found.values())
        return self._group(loaded, found)

    def _of(self, task: Task, kept: _Items) -> _Value:
        from lm_eval.api.metrics import mean, stderr_for_metric

        items = kept.all()
        if not items:
            return {"value": None, "stderr": None, "n": 0}
        function = task.aggregation().get(self._name.aggregation, mean)
        resamples = _SLOW_RESAMPLES if self._name.metric in _SLOW else _RESAMPLES
        with _quiet():
            value = function(items)
            error = stderr_for_metric(function, resamples)
            stderr = error(items) if error is not None and len(items) > 1 else None
        return {"value": _number(value), "stderr": _number(stderr), "n": len(items)}

    def _group(self, loaded: LoadedTask, tasks: Mapping[str, _Value]) -> Summary:
        """The group's own aggregation of its tasks; no value for a tag or a group without aggregation."""
        total = sum(one["n"] for one in tasks.values())
        if loaded.group is None:
            return _with_interval({"value": None, "stderr": None, "n": total})
        key, error = self._name.text, f"{self._name.metric}_stderr,{self._name.filter}"
        known = {
            name: {key: one["value"], error: "N/A" if one["stderr"] is None else one["stderr"], "sample_len": one["n"]}
            for name, one in tasks.items() if one["n"]
        }  # fmt: skip
        with _quiet():
            found = loaded.group.aggregate(known)
        return _with_interval({"value": _number(found.get(key)), "stderr": _number(found.get(error)), "n": total})


class _Items:
    """The items that lm_eval aggregates, in order: 8 bytes per number; a list once there is another type."""

    def __init__(self) -> None:
        self._numbers = array.array("d")
        self._mixed: list[object] | None = None

    def append(self, item: object) -> None:
        if self._mixed is None and isinstance(item, int | float):
            self._numbers.append(item)
            return
        if self._mixed is None:
            self._mixed, self._numbers = list(self._numbers), array.array("d")
        self._mixed.append(item)

    def all(self) -> list[object]:
        """The items. Where they are more than numbers (pairs, texts), a bare number is a failed sample's 0."""
        if self._mixed is None:
            return list(self._numbers)
        return [item for item in self._mixed if not isinstance(item, int | float)]


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
