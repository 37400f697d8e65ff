"""Aggregate the scores of all metrics, over all samples and by group, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hpcjobs.config import TaskConfig
from hpcjobs.metrics.base import Metric, bounds_of
from hpcjobs.metrics.clusters import ClusterCodes, ClusteredFold, Codes
from hpcjobs.metrics.fold import Fold, MeanFold
from hpcjobs.metrics.groups import AnyFold, Groups, ScoredBatch, stored_name
from hpcjobs.metrics.registry import lower_is_better
from hpcjobs.metrics.unscored import Unscored, without_unscored
from hpcjobs.run_folder.metrics_file import Groups as SummaryGroups
from hpcjobs.run_folder.metrics_file import Summary


class Aggregator:
    """Aggregates rows of results.parquet, in input order, into the `metrics` and `groups` of metrics.json.

    `revisions`: the number of the definition that made the scores of a metric, if it was not the first.
    """

    def __init__(self, metrics: Sequence[Metric], task: TaskConfig, revisions: Mapping[str, int] | None = None) -> None:
        self._revisions = revisions or {}
        self._metrics, self._cluster_by, self._codes = metrics, task.cluster_by, ClusterCodes()
        self._folds = self._make()
        self._unscored = {metric.name: Unscored(metric.name) for metric in metrics if _scores_all(metric)}
        self._groups = [Groups(column, self._make) for column in task.group_by] if metrics else []

    def _make(self) -> dict[str, AnyFold]:
        folds = {metric.name: fold_of(metric) for metric in self._metrics}
        return {name: ClusteredFold(fold) for name, fold in folds.items()} if self._cluster_by else {**folds}

    def add(self, rows: pa.Table) -> None:
        """Add a batch of rows, with all their columns."""
        clusters = self._clusters(rows)
        scored = {metric.name: _scored(rows, metric, clusters) for metric in self._metrics}
        for name, fold in self._folds.items():
            scored[name].feed(fold)
        for name, unscored in self._unscored.items():
            unscored.add(rows, scored[name].missing)
        for groups in self._groups:
            groups.add(input_column(rows, groups.column), scored)

    def _clusters(self, rows: pa.Table) -> Codes | None:
        return self._codes.of(input_column(rows, self._cluster_by)) if self._cluster_by else None

    def summary(self) -> dict[str, Summary]:
        """Each metric's value with its standard error and confidence intervals."""
        return {metric.name: self._told(metric, self._folds[metric.name].summary()) for metric in self._metrics}

    def _told(self, metric: Metric, summary: Summary) -> Summary:
        """The summary, saying so if lower values are better (compare and reports cannot ask the class), and how many
        samples are left out because their score is no number.
        """
        if getattr(metric, "lower_is_better", False) or lower_is_better(metric.name):
            summary = {**summary, "lower_is_better": True}
        if metric.name in self._revisions:
            summary = {**summary, "revision": self._revisions[metric.name]}
        unscored = self._unscored.get(metric.name)
        return {**summary, "unscored": unscored.count} if unscored and unscored.count else summary

    def groups(self) -> SummaryGroups:
        """{column: {value: {metric: summary}}} for `task.group_by`, without columns that have too many values.

        A fold may have `subgroups()`, its summaries of groups of tasks: they are told as the column `group`.
        """
        found = {groups.column: groups.summary() for groups in self._groups if not groups.note}
        inner = dict[str, dict[str, Summary]]()
        for name, fold in self._folds.items():
            for group, summary in getattr(fold, "subgroups", dict)().items():
                inner.setdefault(group, {})[name] = summary
        return found | ({"group": inner} if inner else {})

    def told(self, values: dict[str, Any]) -> dict[str, Any]:
        """The values of metrics.json with `groups` added, if there are any. `warnings` has columns left out, scores
        that are no numbers, and what a fold says of its value (`notes()`).
        """
        earlier = tuple(f"{name}: its " for name in self._folds)
        known = [text for text in without_unscored(values["warnings"]) if not text.startswith(earlier)]
        notes = [line for unscored in self._unscored.values() if (line := unscored.warning())]
        notes += [groups.note for groups in self._groups if groups.note and groups.note not in known]
        notes += [text for fold in self._folds.values() for text in getattr(fold, "notes", list)()]
        groups = {"groups": self.groups()} if self._groups else {}
        return values | groups | {"warnings": [*known, *notes]}


def fold_of(metric: Metric) -> Fold:
    """The metric's own fold; the mean for a user's class without one."""
    return metric.fold() if hasattr(metric, "fold") else MeanFold(bounds_of(metric))


def _scores_all(metric: Metric) -> bool:
    """Whether every sample has a score by it; in a group of lm_eval's, each task has metrics of its own."""
    return "lm_eval" not in getattr(metric, "tasks", ())


def _scored(rows: pa.Table, metric: Metric, clusters: Codes | None) -> ScoredBatch:
    name = metric.name
    scores = struct_field(rows, "scores", name).to_numpy(zero_copy_only=False)
    statistics = None
    if "statistics" in rows.column_names and rows.schema.field("statistics").type.get_field_index(name) >= 0:
        statistics = struct_field(rows, "statistics", name)
    if not getattr(metric, "skips_errors", False):
        return ScoredBatch(np.asarray(scores, np.float64), statistics, clusters)
    kept = rows.column("error").combine_chunks().is_null()  # earlier versions wrote 0 there
    whole = None if statistics is None else pc.if_else(kept, statistics, pa.scalar(None, statistics.type))
    return ScoredBatch(np.where(kept.to_numpy(zero_copy_only=False), scores, np.nan), whole, clusters)


def input_column(rows: pa.Table, column: str) -> pa.Array:
    """A column of the user's rows."""
    names = [field.name for field in rows.schema.field("input").type]
    return struct_field(rows, "input", stored_name(column, names))


def struct_field(rows: pa.Table, column: str, name: str) -> pa.Array:
    """One field of a struct column, as one array."""
    place = rows.schema.field(column).type.get_field_index(name)
    return pc.struct_field(rows.column(column).combine_chunks(), [place])
