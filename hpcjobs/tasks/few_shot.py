"""Few-shot examples: which rows come before a sample's prompt."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from hpcjobs.config import Config, DataConfig, FewShotConfig
from hpcjobs.errors import ConfigError, DataError, did_you_mean
from hpcjobs.requests import Row
from hpcjobs.run_folder.inputs import Inputs, user_columns, user_row
from hpcjobs.run_folder.json_columns import python_rows, python_values
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.tasks.datasets import load_table, on_hub
from hpcjobs.tasks.seeds import sample_seed

_Key = str | int | float | None | tuple[str, str]


class Rows(Protocol):
    """Rows by number, and single columns."""

    @property
    def columns(self) -> list[str]:
        """The column names."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Row: ...

    def values(self, name: str) -> list[object]:
        """One column of all rows."""
        ...


class TableRows:
    """The rows of a table in memory."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    @property
    def columns(self) -> list[str]:
        """The column names."""
        return list(self._table.column_names)

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> Row:
        return python_rows(self._table.slice(index, 1))[0]

    def values(self, name: str) -> list[object]:
        """One column of all rows."""
        return python_values(self._table.schema.field(name), self._table.column(name))


class Pool:
    """The rows from which examples are taken. `own`: they are the data set's own rows, so a sample is not its own
    example.
    """

    def __init__(self, config: FewShotConfig, rows: Rows, own: bool) -> None:
        self._config, self._rows, self._own = config, rows, own
        self._groups: dict[_Key, Sequence[int]] = {None: range(len(rows))}
        if config.same is not None:
            groups: dict[_Key, list[int]] = {}
            for number, value in enumerate(rows.values(_stored_name(config.same, rows.columns))):
                groups.setdefault(_key(value), []).append(number)
            self._groups = dict(groups)

    def examples(self, row: Row, sample: str) -> Iterator[Row]:
        """The examples of a sample, as templates see them. The same for the same seed, id and pool, on any rank.

        Raises a ValueError if there are too few.
        """
        key = None if self._config.same is None else _key(row.get(self._config.same))
        among = self._groups.get(key, [])
        if self._config.sampling == "random":
            draw = random.Random(sample_seed(self._config.seed, sample))
            among = draw.sample(among, min(len(among), self._config.k + 1))
        rows = (self._rows[number] for number in among[: self._config.k + 1])
        found = [one for one in rows if not self._own or one["id"] != sample]
        if len(found) < self._config.k:
            restriction = f" with {self._config.same} = {row.get(self._config.same)!r}" if self._config.same else ""
            raise ValueError(f"task.few_shot.k is {self._config.k}, and there are {len(found)} other rows{restriction}")
        return (user_row(one) for one in found[: self._config.k])


def _key(value: object) -> _Key:
    """A key that is equal for equal values only: in Python True equals 1, and NaN does not equal itself."""
    if isinstance(value, str | int | float | None) and not isinstance(value, bool) and value == value:
        return value
    return type(value).__name__, repr(value)


def _stored_name(shown: str, columns: Sequence[str]) -> str:
    """The stored column that templates call `shown`. Raises a ConfigError if there is none."""
    names = {user_columns([name])[0]: name for name in columns}
    if shown not in names:
        raise ConfigError(
            f"task.few_shot.same: {shown!r} is no column{did_you_mean(shown, names)}; columns: {', '.join(names)}"
        )
    return names[shown]


def pool_table(config: Config, table: pa.Table) -> pa.Table | None:
    """The rows from which examples may be taken, as far as needed.

    None if the task has no examples, or if any row of the data set `table` may be one: the run folder has it already.
    Raises a ConfigError or DataError.
    """
    shots = config.task.few_shot
    if not shots.k:
        return None
    own = is_own(shots)
    pool = table if own else _load(config)
    if shots.same is not None:
        _stored_name(shots.same, table.column_names)
    if shots.sampling == "random":
        return None if own else pool
    return pool.slice(0, shots.k + 1) if shots.same is None else _first_of_each(pool, shots)


def is_own(shots: FewShotConfig) -> bool:
    """Whether examples come from the data set itself."""
    return shots.data is None and shots.split is None


def _load(config: Config) -> pa.Table:
    shots, data = config.task.few_shot, config.data
    if shots.data:
        data = DataConfig(name=shots.data, config=data.config if on_hub(shots.data) else None)
    changes = {"split": shots.split, "config": shots.config or data.config, "max_samples": None, "id_column": None}
    try:
        return load_table(data.model_copy(update=changes))
    except DataError as error:
        raise DataError(f"task.few_shot: {error}") from None


def _first_of_each(pool: pa.Table, shots: FewShotConfig) -> pa.Table:
    counts: dict[_Key, int] = {}
    keep = []
    for number, value in enumerate(TableRows(pool).values(_stored_name(shots.same or "", pool.column_names))):
        counts[_key(value)] = counts.get(_key(value), 0) + 1
        if counts[_key(value)] <= shots.k + 1:
            keep.append(number)
    return pc.take(pool, pa.array(keep, pa.int64()))


def read_pool(paths: RunPaths, shots: FewShotConfig) -> Pool | None:
    """The pool in a run folder; None if its task has no examples."""
    if not shots.k:
        return None
    path = paths.few_shot if paths.few_shot.exists() else paths.data
    return Pool(shots, Inputs(path), is_own(shots))
