"""Finding a metric: a built-in by name, a user's own class by path."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable
from typing import Any

from hpcjobs.errors import ConfigError, did_you_mean
from hpcjobs.metrics.base import Metric
from hpcjobs.metrics.contains import Contains
from hpcjobs.metrics.exact_match import ExactMatch
from hpcjobs.metrics.f1 import F1
from hpcjobs.metrics.number_match import NumberMatch
from hpcjobs.metrics.acc import Acc, AccNorm

BUILT_IN: dict[str, type[Metric]] = {kind.name: kind for kind in (ExactMatch, Contains, F1, NumberMatch, Acc, AccNorm)}


def find_metrics(names: Iterable[str]) -> list[Metric]:
    """The metrics of a config, in its order; a ConfigError for one that does not exist or stands twice."""
    metrics = [find_metric(name) for name in names]
    seen: set[str] = set()
    for metric in metrics:
        if metric.name in seen:
            raise ConfigError(f"task.metrics: two metrics are called {metric.name!r}")
        seen.add(metric.name)
    return metrics


def find_metric(name: str) -> Metric:
    """The metric that `name` means: a built-in, or the class at `package.module:Class`."""
    if ":" in name:
        return _own_metric(name)
    if name not in BUILT_IN:
        raise ConfigError(
            f"task.metrics: no metric {name!r}{did_you_mean(name, BUILT_IN)}; there are {', '.join(BUILT_IN)}, "
            "and your own as package.module:Class"
        )
    return BUILT_IN[name]()


def _own_metric(path: str) -> Metric:
    module_name, _, class_name = path.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # the console script, unlike `python -m`, does not look in the working folder
    try:
        kind: Any = getattr(importlib.import_module(module_name), class_name)
        metric = kind()
    except Exception as error:  # the user's module may raise anything
        raise ConfigError(f"task.metrics: {path!r} cannot be used: {type(error).__name__}: {error}") from None
    if not callable(getattr(metric, "score", None)):
        raise ConfigError(f"task.metrics: {path!r} has no method score(completion, target, row)")
    if not isinstance(getattr(metric, "name", None), str):
        metric.name = class_name
    return metric  # type: ignore[no-any-return]
