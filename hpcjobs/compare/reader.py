"""Read the rows of a results.parquet in input order, up to given indexes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hpcjobs.compare.results import Results
from hpcjobs.errors import MergeError

Places = npt.NDArray[np.int64]


class Reader:
    """Reads `index`, `id` and those of `columns` that exist, some thousands of rows at a time."""

    def __init__(self, results: Results, columns: Sequence[str]) -> None:
        self._path, self._batches = results.path, results.batches(columns)
        self._rest = results.empty(columns)
        self._indexes: Places = np.empty(0, np.int64)
        self._last = -1

    def next_index(self) -> int | None:
        """The index of the next row; None at the end."""
        while not len(self._indexes) and self._read():
            pass
        return int(self._indexes[0]) if len(self._indexes) else None

    def take(self, stop: int) -> pa.Table:
        """The next rows with an index below `stop`. Raises a MergeError if the file is not in input order."""
        while (not len(self._indexes) or self._indexes[-1] < stop) and self._read():
            pass
        count = int(np.searchsorted(self._indexes, stop))
        taken, self._rest, self._indexes = self._rest.slice(0, count), self._rest.slice(count), self._indexes[count:]
        return taken

    def _read(self) -> bool:
        """One more batch; False at the end."""
        batch = next(self._batches, None)
        if batch is None:
            return False
        indexes = batch.column("index").to_numpy()
        if (np.diff(indexes, prepend=self._last) <= 0).any():
            raise MergeError(f"{self._path} is not in input order; next: hpcjobs merge {self._path.parent}")
        self._last = int(indexes[-1]) if len(indexes) else self._last
        self._rest = pa.concat_tables([self._rest, batch])
        self._indexes = np.concatenate([self._indexes, indexes])
        return True
