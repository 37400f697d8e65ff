"""The samples that failed: without a completion, or with one that a metric did not score."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hpcjobs.metrics import Metric, leaves_errors_out

Mask = npt.NDArray[np.bool_]
# The warnings below, and those of earlier versions.
_OURS = re.compile(r"\d+ samples (ended in an error|whose metric failed)|.* failed for \d+ samples, which have no ")


@dataclass
class MetricFailure:
    """How many samples a metric did not score; the first one's id and error."""

    metric: str
    first: str
    count: int = 0


@dataclass
class Failures:
    """Counts of samples that failed, from rows of results.parquet.

    `errors` have no completion, `metric_errors` have one without a score of some metric. `earlier` are those of them
    that an earlier version scored 0, and wrote to `error`.
    """

    errors: int = 0
    metric_errors: int = 0
    earlier: int = 0
    metrics: dict[str, MetricFailure] = field(default_factory=dict)

    def count(self, rows: pa.Table) -> Mask:
        """Count rows; returns the mask of those without a completion."""
        without, earlier = split_errors(rows)
        self.errors, self.earlier = self.errors + int(without.sum()), self.earlier + int(earlier.sum())
        self.metric_errors += int(earlier.sum())
        if "metric_errors" in rows.column_names:
            failed = rows.filter(pc.greater(pc.list_value_length(rows.column("metric_errors")), 0))
            self.metric_errors += len(failed)
            for row in failed.select(["id", "metric_errors"]).to_pylist():
                self._add(row["id"], row["metric_errors"])
        return without

    def _add(self, name: str, errors: Iterable[dict[str, str]]) -> None:
        for error in errors:
            text = f"{error['type']}: {error['message']} (first: {name})"
            self.metrics.setdefault(error["metric"], MetricFailure(error["metric"], text)).count += 1

    def warnings(self, metrics: Sequence[Metric]) -> list[str]:
        """Warnings, one line each, of a run with these metrics."""
        found = [_without(self.errors, metrics)] if self.errors else []
        if self.earlier:
            found.append(
                f"{self.earlier} samples whose metric failed count 0 in every metric, as an earlier version of hpcjobs "
                "has scored them: hpcjobs score judges them again"
            )
        for one in self.metrics.values():
            found.append(f"{one.metric} failed for {one.count} samples, which have no score of it: {one.first}")
        return found


def is_of_failures(warning: str) -> bool:
    """Whether a warning of metrics.json is one of `Failures.warnings`, of this or an earlier version."""
    return bool(_OURS.match(warning))


def split_errors(rows: pa.Table) -> tuple[Mask, Mask]:
    """The masks of rows without a completion, and of those whose metric failed in an earlier version."""
    wrong = np.asarray(pc.is_valid(rows.column("error")).to_numpy(), np.bool_)
    unmade = np.asarray(pc.equal(rows.column("finish_reason"), "error").to_numpy(), np.bool_)
    return wrong & unmade, wrong & ~unmade


def _without(count: int, metrics: Sequence[Metric]) -> str:
    out = [metric.name for metric in metrics if leaves_errors_out(metric)]
    counted = [metric.name for metric in metrics if metric.name not in out]
    if metrics and not counted:
        return f"{count} samples ended in an error and are in no metric"
    if not out:
        return f"{count} samples ended in an error and count 0 in every metric"
    both = f"they are left out of {', '.join(out)}, and count 0 in {', '.join(counted)}"
    return f"{count} samples ended in an error: {both}"
