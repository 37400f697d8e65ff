"""Clustered standard errors: of samples that share a passage, a document or a user, and so are not independent."""

from __future__ import annotations

import math
from collections.abc import Hashable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hpcjobs.metrics.bootstrap import Floats, percentiles, resampled_totals
from hpcjobs.metrics.fold import Fold, MeanFold, finite, numbers, wilson
from hpcjobs.metrics.student import t_quantile
from hpcjobs.metrics.sums import MOST_BLOCKS, SumsFold
from hpcjobs.run_folder.metrics_file import Summary

Codes = npt.NDArray[np.int64]


class ClusterCodes:
    """Numbers for the values of a column, from 0; a row without a value is a cluster of its own."""

    def __init__(self) -> None:
        self._known: dict[Hashable, int] = {}
        self._next = 0

    def of(self, values: pa.Array) -> Codes:
        """The number of each row's cluster, shape (n,)."""
        plain = values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
        return np.array([self._code(value) for value in plain.to_pylist()], np.int64)

    def _code(self, value: Hashable) -> int:
        if value is not None and value in self._known:
            return self._known[value]
        code, self._next = self._next, self._next + 1
        if value is not None:
            self._known[value] = code
        return code


class ClusterTotals:
    """The sums of rows of `width` numbers by cluster, in order of appearance; the same bits whatever the batches."""

    def __init__(self, width: int) -> None:
        self._places: dict[int, int] = {}
        self._sums: Floats = np.zeros((0, width))

    def add(self, rows: Floats, codes: Codes) -> None:
        """Add rows, shape (n, width), with the number of each row's cluster."""
        places = np.array([self._places.setdefault(code, len(self._places)) for code in codes.tolist()], np.int64)
        if len(self._places) > len(self._sums):
            more = max(len(self._places), 2 * len(self._sums)) - len(self._sums)
            self._sums = np.concatenate([self._sums, np.zeros((more, self._sums.shape[1]))])
        np.add.at(self._sums, places, rows)  # one by one, in order

    @property
    def sums(self) -> Floats:
        """The sums, shape (clusters, width)."""
        return self._sums[: len(self._places)]

    def resampled(self) -> Floats:
        """The sums of 1000 bootstrap resamples of whole clusters; above 8192 clusters of neighbours joined in pairs."""
        sums = self.sums
        while len(sums) > MOST_BLOCKS:
            sums = np.add.reduceat(sums, np.arange(0, len(sums), 2))
        return resampled_totals(sums)


def clustered_stderr(sums: Floats) -> float | None:
    """The standard error of a mean from each cluster's sum of scores and number of samples, shape (clusters, 2).

    sqrt(G / (G - 1) * sum over the G clusters of (sum of (score - mean)) ** 2) / n; None below two clusters. Sources:
    Miller, 'Adding error bars to evals', arXiv 2411.00640, 2024, section 2.2; the factor G / (G - 1) as statsmodels
    and Stata have it. With one sample in each cluster it is the usual standard error.
    """
    count, (total, n) = len(sums), sums.sum(axis=0)
    if count < 2:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        off = sums[:, 0] - sums[:, 1] * (total / n)
        return finite(math.sqrt(count / (count - 1) * float((off**2).sum())) / float(n))


class ClusteredFold:
    """A metric's fold with the errors and intervals of clusters: t with G - 1 degrees of freedom for a mean, and a
    bootstrap of whole clusters.
    """

    def __init__(self, fold: Fold) -> None:
        self._fold, self._clusters = fold, ClusterTotals(fold.width if isinstance(fold, SumsFold) else 2)

    def limit(self) -> None:
        """Let the fold itself use less memory; there are as many sums as clusters."""
        if hasattr(self._fold, "limit"):
            self._fold.limit()

    def notes(self) -> list[str]:
        """What the fold itself says of its value."""
        return list(getattr(self._fold, "notes", list)())

    def add(self, scores: Floats, statistics: pa.Array | None, codes: Codes) -> None:
        """Add a batch, as to a fold, with the number of each sample's cluster."""
        self._fold.add(scores, statistics)
        if isinstance(self._fold, SumsFold):
            rows = np.empty((0, self._fold.width)) if statistics is None else numbers(statistics, self._fold.width)
        else:
            rows = np.column_stack([scores, np.ones(len(scores))])
        there = np.isfinite(rows).all(axis=1)
        self._clusters.add(rows[there], codes[: len(rows)][there])

    def summary(self) -> Summary:
        """The fold's summary with clustered errors, and the number of clusters."""
        found = self._fold.summary()
        if not isinstance(self._fold, MeanFold | SumsFold):
            return found  # a user's own, of which nothing is known
        if not found["n"] or found["value"] is None:
            return {**found, "clusters": len(self._clusters.sums)}
        stderr, interval, resampled = self._errors(found["value"])
        return {
            **found, "stderr": stderr, "ci95": interval, "bootstrap_ci95": resampled,
            "clusters": len(self._clusters.sums),
        }  # fmt: skip

    def _errors(self, value: float) -> tuple[float | None, list[float] | None, list[float] | None]:
        sums = self._clusters.sums
        if len(sums) < 2:
            return None, None, None
        totals = self._clusters.resampled()
        if isinstance(self._fold, SumsFold):
            return self._fold.errors(value, totals)
        stderr, resampled = clustered_stderr(sums), list(percentiles(totals[:, 0] / totals[:, 1]))
        mean = self._fold
        binary = isinstance(mean, MeanFold) and mean.binary
        if stderr is None or (binary and not stderr):  # all right or all wrong: there are as many samples as clusters
            return stderr, wilson(value, len(sums)) if binary else None, resampled
        half = t_quantile(len(sums) - 1) * stderr
        ends = [value - half, value + half]
        return stderr, mean.within(ends) if isinstance(mean, MeanFold) else ends, resampled
