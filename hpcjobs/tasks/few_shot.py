"""Few-shot examples: which rows come before a sample's prompt."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from hpcjobs.assets import data_suffix
from hpcjobs.config import Config, DataConfig, FewShotConfig
from hpcjobs.errors import ConfigError, DataError, did_you_mean
from hpcjobs.requests import Row
from hpcjobs.run_folder.inputs import Inputs, user_columns, user_row
from hpcjobs.run_folder.json_columns import python_rows, python_values
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.tasks.csv_rows import DELIMITERS
from hpcjobs.tasks.datasets import load_beside, on_hub
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
    """The rows from which examples are taken.

    `own`: they are the data set's own rows, so the row with a sample's id is not its example.
    """

    def __init__(self, config: FewShotConfig, rows: Rows, own: bool) -> None:
        self._config, self._rows, self._own = config, rows, own
        self._groups: dict[_Key, Sequence[int]] = {None: range(len(rows))}
        if config.same is not None:
            self._groups = dict(_groups(config.same, rows))

    def examples(self, row: Row, sample: str, asked: Iterable[str] = ()) -> list[Row]:
        """The examples of a sample, as templates see them. The same for the same seed, id and pool, on any rank.

        A sample is never its own example, whatever the rows are called: a row with the sample's values in `asked`, the
        columns of question and answer, is passed over, as lm_eval passes over a document equal to the one asked.
        Raises a ValueError if there are too few.
        """
        key = None if self._config.same is None else _key(row.get(self._config.same))
        names, found = sorted(asked), list[Row]()
        question = _keys(row, names)
        for number in self._order(self._groups.get(key, []), sample):
            if len(found) == self._config.k:
                break
            stored = self._rows[number]
            one = user_row(stored)
            if not (self._own and stored["id"] == sample) and not (names and _keys(one, names) == question):
                found.append(one)
        if len(found) < self._config.k:
            restriction = f" with {self._config.same} = {row.get(self._config.same)!r}" if self._config.same else ""
            raise ValueError(f"task.few_shot.k is {self._config.k}, and there are {len(found)} other rows{restriction}")
        return found

    def _order(self, among: Sequence[int], sample: str) -> Iterator[int]:
        """The rows `among` in the order in which they are taken: k + 1 are enough, but for rows that stand twice."""
        if self._config.sampling == "first":
            yield from among
            return
        draw = random.Random(sample_seed(self._config.seed, sample))
        drawn = draw.sample(among, min(len(among), self._config.k + 1))
        yield from drawn
        taken = set(drawn)
        yield from (number for number in draw.sample(among, len(among)) if number not in taken)


def _groups(same: str, rows: Rows) -> dict[_Key, list[int]]:
    """The numbers of the rows by their value in the column `same`."""
    groups: dict[_Key, list[int]] = {}
    for number, value in enumerate(rows.values(_stored_name(same, rows.columns))):
        groups.setdefault(_key(value), []).append(number)
    return groups


def _keys(row: Row, names: Sequence[str]) -> tuple[_Key, ...]:
    """What tells a row from others: its values in the columns `names`."""
    return tuple(_key(row.get(name)) for name in names)


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


def pool_table(config: Config, table: pa.Table, asked: Iterable[str] = ()) -> pa.Table | None:
    """The rows from which examples may be taken, as far as needed; `asked` as in `Pool.examples`.

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
    return _first_of_each(pool, shots, sorted(asked))


def is_own(shots: FewShotConfig) -> bool:
    """Whether examples come from the data set itself."""
    return shots.data is None and shots.split is None


def _load(config: Config) -> pa.Table:
    shots, data = config.task.few_shot, config.data
    if shots.data:
        config_name = data.config if on_hub(shots.data) else None
        delimiter = data.delimiter if data_suffix(shots.data) in DELIMITERS else None
        data = DataConfig(name=shots.data, config=config_name, types=data.types, delimiter=delimiter)
    changes = {"split": shots.split, "config": shots.config or data.config, "max_samples": None, "id_column": None}
    try:
        return load_beside(data.model_copy(update=changes))
    except DataError as error:
        raise DataError(f"task.few_shot.{'data' if shots.data else 'split'}: {error}") from None


def _first_of_each(pool: pa.Table, shots: FewShotConfig, asked: Sequence[str]) -> pa.Table:
    """The first rows of each group: as many as leave k to every sample, whichever row is its own."""
    rows = TableRows(pool)
    groups = _groups(shots.same, rows) if shots.same is not None else {None: range(len(rows))}
    keep = [number for group in groups.values() for number in _enough(rows, group, shots.k, asked)]
    return pc.take(pool, pa.array(sorted(keep), pa.int64()))


def _enough(rows: Rows, group: Sequence[int], k: int, asked: Sequence[str]) -> Sequence[int]:
    counts: Counter[tuple[_Key, ...]] = Counter()
    for place, number in enumerate(group):
        if place > k and place - max(counts.values()) >= k:
            return group[:place]
        counts[_keys(user_row(rows[number]), asked) if asked else (number,)] += 1
    return group


def read_pool(paths: RunPaths, shots: FewShotConfig) -> Pool | None:
    """The pool in a run folder; None if its task has no examples."""
    if not shots.k:
        return None
    path = paths.few_shot if paths.few_shot.exists() else paths.data
    return Pool(shots, Inputs(path), is_own(shots))
