"""Find metrics: built-in ones by name, those of installed packages by entry point, a class by its path."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from hpcjobs import plugins
from hpcjobs.config import TaskConfig
from hpcjobs.errors import ConfigError, did_you_mean
from hpcjobs.metrics.base import Metric
from hpcjobs.metrics.builtin.accuracy import Accuracy, AccuracyBytes, AccuracyNorm
from hpcjobs.metrics.builtin.answered import Answered
from hpcjobs.metrics.builtin.bleu import Bleu
from hpcjobs.metrics.builtin.chrf import Chrf
from hpcjobs.metrics.builtin.contains import Contains
from hpcjobs.metrics.builtin.exact_match import ExactMatch
from hpcjobs.metrics.builtin.f1 import F1
from hpcjobs.metrics.builtin.json_valid import JsonValid
from hpcjobs.metrics.builtin.number_match import NumberMatch
from hpcjobs.metrics.builtin.perplexity import BitsPerByte, BytePerplexity, Perplexity, WordPerplexity
from hpcjobs.metrics.builtin.repeats import Majority, PassAtK
from hpcjobs.metrics.builtin.rouge import Rouge1, Rouge2, RougeL, RougeLsum
from hpcjobs.metrics.settings import checked_settings, full_name, split_name

_KINDS: tuple[type[Metric], ...] = (
    ExactMatch, Contains, F1, NumberMatch, Bleu, Chrf, Rouge1, Rouge2, RougeL, RougeLsum, JsonValid, Answered,
    Accuracy, AccuracyNorm, AccuracyBytes, Perplexity, WordPerplexity, BytePerplexity, BitsPerByte,
)  # fmt: skip
BUILT_IN: dict[str, type[Metric]] = {kind.name: kind for kind in _KINDS}
# Over several answers per prompt; `(metric)` after them names the metric of each answer.
OVER_REPEATS = ("pass@k", "majority")
_REPEATED = re.compile(r"(?:pass@(?P<k>[1-9]\d{0,5})|majority)(?:\((?P<base>.*)\))?")


def find_metrics(names: Iterable[str], task_type: str | None = None) -> list[Metric]:
    """The metrics of a config, in its order. Raises a ConfigError for one that does not exist or is listed twice."""
    metrics = [find_metric(name, task_type) for name in names]
    seen: set[str] = set()
    for metric in metrics:
        if metric.name in seen:
            raise ConfigError(f"task.metrics: two metrics are called {metric.name!r}")
        seen.add(metric.name)
    return metrics


def _known(task_type: str | None) -> list[str]:
    """The names of metrics; of hpcjobs' own only those for this type of task. Of others that is not known by name."""
    fitting = [name for name, kind in BUILT_IN.items() if task_type in (None, *kind.tasks)]
    repeated = OVER_REPEATS if task_type in (None, "generate") else ()
    return [*fitting, *repeated, *plugins.registered(plugins.METRICS)]


def metrics_of(task: TaskConfig) -> tuple[str, ...]:
    """The names of a task's metrics. With `task.extract`, `answered` is added: how often the pattern matched."""
    more = () if task.extract is None or Answered.name in task.metrics or not task.metrics else (Answered.name,)
    return (*task.metrics, *more)


def find_metric(name: str, task_type: str | None = None) -> Metric:
    """The metric of this name: a built-in one, one over several answers such as `pass@5(exact_match)`, one that an
    installed package registers, or the class at `package.module:Class`.

    Raises a ConfigError, which lists the metrics for `task_type`, if given.
    """
    if repeated := _REPEATED.fullmatch(name):
        base = find_metric(repeated["base"] if repeated["base"] is not None else ExactMatch.name, task_type)
        if "generate" not in getattr(base, "tasks", ("generate",)) or isinstance(base, Majority | PassAtK):
            raise ConfigError(f"task.metrics: {name!r}: {base.name} does not judge one answer in words")
        return PassAtK(name, base, int(repeated["k"])) if repeated["k"] else Majority(name, base)
    if name == "pass@k":
        raise ConfigError("task.metrics: 'pass@k': write a number of answers for k, such as pass@1")
    metric, options = split_name(name)
    if options and metric in BUILT_IN:
        return _configured(BUILT_IN[metric], options)
    if ":" in name:
        return _own_metric(name)
    if name not in BUILT_IN:
        if name in plugins.registered(plugins.METRICS):
            return _registered_metric(name)
        known = _known(task_type)
        raise ConfigError(
            f"task.metrics: no metric {name!r}{did_you_mean(metric, known)}; there are {', '.join(known)}, "
            "and your own as package.module:Class"
        )
    return BUILT_IN[name]()


def _configured(kind: type[Metric], options: Mapping[str, str]) -> Metric:
    settings, name = checked_settings(kind.name, kind.settings, options), full_name(kind.name, options)
    try:
        return kind.configured(name, settings)
    except Exception as error:  # a tokenizer may need a library or a file that is not here
        raise ConfigError(f"task.metrics: {name!r} cannot be used: {' '.join(str(error).split())}") from None


def _registered_metric(name: str) -> Metric:
    """The metric that an installed package registers as `name`, which is its name in results too."""
    kind = plugins.load(plugins.METRICS, name)
    try:
        with plugins.contained():
            metric = kind()
    except Exception as error:  # another package's code may raise anything
        raise ConfigError(f"task.metrics: {name!r} cannot be used: {type(error).__name__}: {error}") from None
    metric.name = name
    return _checked(metric, name)


def registered_names(names: Iterable[str]) -> list[str]:
    """The metrics of a config that installed packages register, including those inside pass@k and majority."""
    bases = [found["base"] if (found := _REPEATED.fullmatch(name)) else name for name in names]
    others = [name for name in bases if name and split_name(name)[0] not in BUILT_IN and ":" not in name]
    return [name for name in others if name in plugins.registered(plugins.METRICS)]


def _own_metric(path: str) -> Metric:
    module_name, _, class_name = path.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # the console script, unlike `python -m`, does not look in the working folder
    try:
        with plugins.contained():
            kind: Any = getattr(importlib.import_module(module_name), class_name)
            metric = kind()
    except Exception as error:  # the user's module may raise anything
        raise ConfigError(f"task.metrics: {path!r} cannot be used: {type(error).__name__}: {error}") from None
    if not isinstance(getattr(metric, "name", None), str):
        metric.name = class_name
    return _checked(metric, path)


def _checked(metric: Any, name: str) -> Metric:
    if not callable(getattr(metric, "score", None)):
        raise ConfigError(f"task.metrics: {name!r} has no method score(completion, target, row)")
    if not _are_bounds(getattr(metric, "bounds", None)):
        raise ConfigError(f"task.metrics: {name!r}: its bounds {metric.bounds!r} are no pair of numbers such as (0, 1)")
    return metric  # type: ignore[no-any-return]


def _are_bounds(bounds: object) -> bool:
    """Whether this is None, or a pair of the least and greatest score."""
    if bounds is None:
        return True
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        return False
    return all(isinstance(end, int | float) for end in bounds) and bool(bounds[0] < bounds[1])


def lower_is_better(name: str) -> bool:
    """Whether lower values of this metric, as named in results, are better; False for a class by path: its runs say so.

    lm-evaluation-harness appends the filter after a comma, and has two more such metrics.
    """
    if (repeated := _REPEATED.fullmatch(name)) and repeated["base"]:
        return not repeated["k"] and lower_is_better(repeated["base"])
    metric = split_name(name)[0].partition(",")[0]
    if metric in BUILT_IN:
        return BUILT_IN[metric].lower_is_better
    if metric in plugins.registered(plugins.METRICS):
        return bool(getattr(plugins.load(plugins.METRICS, metric), "lower_is_better", False))
    return metric in ("ter", "brier_score")
