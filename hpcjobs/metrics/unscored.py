"""Samples with an answer whose score is no finite number: they are counted and named, not dropped without a word."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

MOST_NAMED = 5
_SAID = "have a score that is no finite number and are left out of it"


class Unscored:
    """Counts such samples of one metric, and keeps the ids of the first ones."""

    def __init__(self, metric: str) -> None:
        self._metric, self.count, self._ids = metric, 0, list[str]()

    def add(self, rows: pa.Table, without: npt.NDArray[np.bool_]) -> None:
        """Add a batch; `without` is where the metric has neither a score nor statistics. Errors are not counted: the
        samples' own and the metric's.
        """
        if "error" in rows.column_names:
            without = without & np.asarray(rows.column("error").is_null().to_numpy(), bool)
        places = self._without_reason(rows, np.flatnonzero(without))
        self.count += len(places)
        if "id" in rows.column_names and len(places):
            named = rows.column("id").take(pa.array(places[: MOST_NAMED - len(self._ids)]))
            self._ids += map(repr, named.to_pylist())

    def _without_reason(self, rows: pa.Table, places: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """The places of samples that the metric has not failed to score."""
        if "metric_errors" not in rows.column_names or not len(places):
            return places
        errors = rows.column("metric_errors").take(pa.array(places)).to_pylist()
        return places[[all(one["metric"] != self._metric for one in sample or ()) for sample in errors]]

    def warning(self) -> str:
        """The warning in one line; empty if there are none."""
        if not self.count:
            return ""
        ids = ", ".join(self._ids) + (", ..." if self.count > len(self._ids) else "")
        return f"{self._metric}: {self.count} samples {_SAID}: {ids}"


def without_unscored(warnings: Iterable[str]) -> list[str]:
    """The warnings of an earlier scoring, without those of this kind."""
    return [line for line in warnings if _SAID not in line]
