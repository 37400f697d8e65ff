"""The board: the values of all metrics of a run, over all samples, folded batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hpcjobs.config import TaskConfig
from hpcjobs.metrics.base import Metric
from hpcjobs.metrics.fold import Fold, MeanFold


class Board:
    """Folds rows of results.parquet, in input order, into the `metrics` of metrics.json."""

    def __init__(self, metrics: Sequence[Metric], task: TaskConfig) -> None:
        self._folds: dict[str, Fold] = {metric.name: fold_of(metric) for metric in metrics}

    def add(self, rows: pa.Table) -> None:
        """One more batch of rows, with all their columns."""
        for name, fold in self._folds.items():
            scores = pc.struct_field(rows.column("scores").combine_chunks(), name)
            fold.add(np.asarray(scores.to_numpy(zero_copy_only=False), np.float64), statistics_of(rows, name))

    def summary(self) -> dict[str, Any]:
        """Each metric's value with what is known of its error."""
        return {name: fold.summary() for name, fold in self._folds.items()}


def fold_of(metric: Metric) -> Fold:
    """The metric's own fold; the mean for a user's class that has none."""
    return metric.fold() if hasattr(metric, "fold") else MeanFold()


def statistics_of(rows: pa.Table, name: str) -> pa.Array | None:
    """The statistics of one metric; None where it has none."""
    if "statistics" not in rows.column_names:
        return None
    column = rows.column("statistics").combine_chunks()
    return pc.struct_field(column, name) if column.type.get_field_index(name) >= 0 else None
