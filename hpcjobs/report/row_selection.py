"""Which rows of results.parquet the report shows: failed ones, the worst, and some spread over the data set."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hpcjobs.run_folder.json_columns import python_rows

MOST_FAILED, MOST_WORST, MOST_SPREAD = 50, 20, 20
_BATCH = 8192


class ShownRow(TypedDict):
    """A row of results.parquet."""

    index: int
    id: str
    completion: str
    finish_reason: str
    completion_tokens: int
    error: dict[str, str] | None
    metric_errors: NotRequired[list[dict[str, str]]]
    scores: NotRequired[dict[str, float | None] | None]
    input: NotRequired[dict[str, object] | None]
    choice_logprobs: NotRequired[list[float] | None]
    completions: NotRequired[list[str] | None]


@dataclass(frozen=True, kw_only=True)
class RowSelection:
    """Row numbers in results.parquet. `failed_in_all` rows have an error, their own or a metric's, `worst_in_all`
    the worst `metric`.
    """

    failed: list[int]
    failed_in_all: int
    worst: list[int]
    worst_in_all: int
    metric: str
    spread: list[int]

    @property
    def rows(self) -> set[int]:
        """All selected rows."""
        return {*self.failed, *self.worst, *self.spread}


def pick_rows(path: Path, lower: Collection[str] = ()) -> RowSelection:
    """Select rows; scores and errors are read once, in batches. Of the metrics in `lower`, lower values are better.

    The first metric that differs between rows decides which are worst. Rows with an error (shown as failed) and rows
    with the best score are never among the worst.
    """
    file = pq.ParquetFile(path)
    metrics = metric_names(file)
    failed, failed_in_all, start = list[int](), 0, 0
    rankings = {name: _Ranking() for name in metrics}
    wanted = [name for name in ("error", "metric_errors", "scores") if name in file.schema_arrow.names]
    for batch in file.iter_batches(_BATCH, columns=wanted):
        wrong = np.asarray(pc.is_valid(batch.column("error")))
        if "metric_errors" in wanted:
            wrong = wrong | np.asarray(pc.greater(pc.list_value_length(batch.column("metric_errors")), 0))
        rows = np.flatnonzero(wrong) + start
        failed += rows[: MOST_FAILED - len(failed)].tolist()
        failed_in_all += len(rows)
        for name, ranking in rankings.items():
            scores = pc.struct_field(batch.column("scores"), name).to_numpy(zero_copy_only=False)
            good = -scores.astype(float) if name in lower else scores.astype(float)
            ranking.add(np.where(wrong, np.nan, good), start)
        start += batch.num_rows
    spread = np.unique(np.linspace(0, start - 1, min(MOST_SPREAD, start)).round().astype(int)).tolist()
    telling = next((name for name, ranking in rankings.items() if ranking.worst()), "")
    ranking = rankings.get(telling, _Ranking())
    return RowSelection(
        failed=failed,
        failed_in_all=failed_in_all,
        worst=ranking.worst(),
        worst_in_all=ranking.ties,
        metric=telling,
        spread=spread,
    )


def metric_names(file: pq.ParquetFile) -> list[str]:
    """The metrics in the rows' scores."""
    schema: pa.Schema = file.schema_arrow
    return [field.name for field in schema.field("scores").type] if "scores" in schema.names else []


class _Ranking:
    """The rows with the lowest scores so far, and how many share the lowest."""

    def __init__(self) -> None:
        self._scores, self._rows = np.empty(0), np.empty(0, int)
        self._lowest, self._best, self.ties = np.inf, -np.inf, 0

    def add(self, scores: npt.NDArray[np.float64], start: int) -> None:
        rows = np.flatnonzero(~np.isnan(scores))
        if not len(rows):
            return
        scores, low = scores[rows], float(scores[rows].min())
        self._best = max(self._best, float(scores.max()))
        if low < self._lowest:
            self._lowest, self.ties = low, 0
        self.ties += int((scores == self._lowest).sum())
        every, places = np.append(self._scores, scores), np.append(self._rows, rows + start)
        order = np.lexsort((places, every))[:MOST_WORST]
        self._scores, self._rows = every[order], places[order]

    def worst(self) -> list[int]:
        found: list[int] = self._rows[self._scores < self._best].tolist()
        return found


def read_rows(path: Path, wanted: Sequence[int]) -> Iterator[tuple[int, ShownRow]]:
    """(row number, row) of each wanted row, ascending; only row groups with one are read."""
    file, start = pq.ParquetFile(path), 0
    numbers = np.array(sorted(wanted), int)
    for group in range(file.num_row_groups):
        stop = start + file.metadata.row_group(group).num_rows
        if len(numbers[(numbers >= start) & (numbers < stop)]):
            for batch in file.iter_batches(_BATCH, row_groups=[group]):
                inside = numbers[(numbers >= start) & (numbers < start + batch.num_rows)]
                rows = batch.take(pa.array(inside - start))
                yield from ((number, _row(rows.slice(place, 1))) for place, number in enumerate(inside.tolist()))
                start += batch.num_rows
        start = stop


def _row(batch: pa.RecordBatch) -> ShownRow:
    """The only row; without its input where Python cannot read that here, as the row's own error says."""
    try:
        return cast(ShownRow, python_rows(batch)[0])
    except Exception:  # of many libraries, among them the one that knows the time zones
        return cast(ShownRow, python_rows(batch.drop_columns(["input"]))[0])
