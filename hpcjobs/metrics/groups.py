"""Groups: the value of every metric for each value of an input column."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hpcjobs.errors import ConfigError, did_you_mean
from hpcjobs.metrics.bootstrap import Floats
from hpcjobs.metrics.clusters import ClusteredFold, Codes
from hpcjobs.metrics.fold import Fold
from hpcjobs.run_folder.inputs import user_columns
from hpcjobs.run_folder.metrics_file import Summary

MOST_GROUPS = 1000
GroupKey = str | int | bool | None
AnyFold = Fold | ClusteredFold


@dataclass(frozen=True)
class ScoredBatch:
    """One metric's scores of a batch, NaN for none, its statistics, and the clusters of the samples, if they have any.
    """

    scores: Floats
    statistics: pa.Array | None
    clusters: Codes | None = None

    def feed(self, fold: AnyFold) -> None:
        """Add the batch to a fold."""
        if isinstance(fold, ClusteredFold):
            alone = np.arange(len(self.scores))
            fold.add(self.scores, self.statistics, alone if self.clusters is None else self.clusters)
        else:
            fold.add(self.scores, self.statistics)

    def take(self, order: npt.NDArray[np.int64]) -> ScoredBatch:
        """The same samples in another order."""
        statistics = None if self.statistics is None else self.statistics.take(pa.array(order))
        return ScoredBatch(self.scores[order], statistics, None if self.clusters is None else self.clusters[order])

    def part(self, start: int, stop: int) -> ScoredBatch:
        """The samples from `start` to `stop`."""
        statistics = None if self.statistics is None else self.statistics.slice(start, stop - start)
        return ScoredBatch(
            self.scores[start:stop], statistics, None if self.clusters is None else self.clusters[start:stop]
        )

    @property
    def missing(self) -> npt.NDArray[np.bool_]:
        """Where there is neither a score nor statistics, shape (n,)."""
        none = ~np.isfinite(self.scores)
        return none if self.statistics is None else none & np.asarray(self.statistics.is_null(), bool)


class Groups:
    """The folds of all metrics for each value of one column, for at most 1000 values.

    With more, `note` says so and there are no summaries, because each group's folds take memory.
    """

    def __init__(self, column: str, make_folds: Callable[[], dict[str, AnyFold]]) -> None:
        self.column, self.note = column, ""
        self._make, self._folds = make_folds, dict[GroupKey, dict[str, AnyFold]]()

    def add(self, values: pa.Array, scored: Mapping[str, ScoredBatch]) -> None:
        """Add a batch: the column's values, and each metric's scores row by row."""
        if self.note:
            return
        plain = values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
        encoded = plain.dictionary_encode(null_encoding="encode")
        keys, codes = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
        if len(self._folds.keys() | keys) > MOST_GROUPS:
            self.note = f"task.group_by: {self.column} has more than {MOST_GROUPS} different values: left out"
            self._folds.clear()
            return
        order = np.argsort(codes, kind="stable")
        borders = np.searchsorted(codes[order], np.arange(len(keys) + 1)).tolist()
        for name, one in scored.items():
            sorted_ = one.take(order)
            for key, start, stop in zip(keys, borders[:-1], borders[1:], strict=True):
                sorted_.part(start, stop).feed(self._of(key)[name])

    def _of(self, key: GroupKey) -> dict[str, AnyFold]:
        if key not in self._folds:
            self._folds[key] = self._make()
            for fold in self._folds[key].values():
                if hasattr(fold, "limit"):
                    fold.limit()
        return self._folds[key]

    def summary(self) -> dict[str, dict[str, Summary]]:
        """{value: {metric: summary}}, sorted by value, null last."""
        keys, labels = sorted(self._folds, key=lambda key: (key is None, key)), _labels(self._folds)
        return {labels[key]: {name: fold.summary() for name, fold in self._folds[key].items()} for key in keys}


def _labels(keys: Iterable[GroupKey]) -> dict[GroupKey, str]:
    """A name for each value; a text that has the name of another value, as "null" of no value, stands in quotes."""
    labels: dict[str, GroupKey] = {}
    for key in sorted(keys, key=lambda key: (key is not None, key)):
        label = key if isinstance(key, str) else json.dumps(key)
        while label in labels:
            label = json.dumps(label)
        labels[label] = key
    return {key: label for label, key in labels.items()}


def check_groups(columns: Sequence[str], inputs: pa.Schema, key: str = "task.group_by") -> None:
    """Raise a ConfigError if a column of `key` is missing, listed twice, or of a type that cannot be grouped.
    """
    valid = user_columns(name for name in inputs.names if name not in ("index", "id"))
    for column in columns:
        if column not in valid:
            hint = did_you_mean(column, valid)
            raise ConfigError(f"{key}: no column {column!r}{hint}; its columns: {', '.join(valid) or 'none'}")
        if list(columns).count(column) > 1:
            raise ConfigError(f"{key}: {column!r} stands twice")
        kind = inputs.field(stored_name(column, inputs.names)).type
        if not _groups(kind):
            raise ConfigError(
                f"{key}: column {column!r} holds {kind}: rows are grouped by texts, whole numbers or booleans"
            )


def stored_name(column: str, names: Sequence[str]) -> str:
    """A column's name in `input`. The user's own `index` and `id` are stored as `source_index` and `source_id`."""
    own = f"source_{column}"
    return own if column in ("index", "id") or (column not in names and own in names) else column


def _groups(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    simple = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_boolean, pa.types.is_null)
    return any(is_kind(kind) for is_kind in simple)
