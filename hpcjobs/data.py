"""Data sets: from an asset, a file, a `datasets` folder or the hub, to a table with `index` and `id`."""

from __future__ import annotations

import bisect
import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from hpcjobs.config import DataConfig
from hpcjobs.errors import DataError, did_you_mean

ASSETS = Path(__file__).parent / "assets"
SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_ROWS_A_BATCH = 4096
# The user's own columns `index` and `id` stay reachable: the table keeps them with one more `source_` in front,
# and so a column that has this look already.
_OWN = re.compile(r"(source_)*(index|id)")


def asset_names() -> list[str]:
    """The data sets that ship with the package."""
    return sorted(path.stem for path in ASSETS.iterdir() if path.suffix in SUFFIXES)


def locate(name: str) -> str:
    """`name` with a path made absolute, since a job runs in another folder; assets and hub ids as they are."""
    if name in asset_names() or not name:
        return name
    path = Path(name).expanduser()
    if path.exists() or path.suffix in SUFFIXES or path.is_absolute() or name.startswith("."):
        return str(path.resolve())
    return name


def load_table(config: DataConfig) -> pa.Table:
    """The rows with `index` (int64, 0..N-1) and `id` (unique text), in their order; else a DataError."""
    table = _read(config)
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if twice:
        raise DataError(f"data set {config.name} has two columns of one name: {', '.join(twice)}")
    if config.max_samples is not None:
        table = table.slice(0, config.max_samples)
    ids = _ids(table, config.id_column)
    for name, ours in (("index", list(range(len(table)))), ("id", ids)):
        if name in table.column_names and table.column(name).to_pylist() == ours:
            table = table.drop_columns([name])  # the same values: no need to keep them twice
    table = table.rename_columns([f"source_{c}" if _OWN.fullmatch(c) else c for c in table.column_names])
    table = table.add_column(0, "index", pa.array(range(len(table)), pa.int64()))
    return table.add_column(1, "id", pa.array(ids, pa.string()))


def user_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as its template sees it: the user's own `index` and `id` where they had some."""
    return {_shown(name): value for name, value in row.items()}  # the user's own come later and win


def user_columns(names: Iterable[str]) -> list[str]:
    """A table's columns as templates name them."""
    return list(dict.fromkeys(_shown(name) for name in names))


def _shown(name: str) -> str:
    return name.removeprefix("source_") if _OWN.fullmatch(name) else name


def _ids(table: pa.Table, id_column: str | None) -> list[str]:
    column = id_column or ("id" if "id" in table.column_names else None)
    if column is None:
        return [str(number) for number in range(len(table))]
    if column not in table.column_names:
        raise DataError(
            f"data.id_column {column!r} is not a column{did_you_mean(column, table.column_names)}; "
            f"columns: {', '.join(table.column_names)}"
        )
    seen: dict[str, int] = {}
    for number, value in enumerate(table.column(column).to_pylist()):
        text = str(value)
        if value is None or not text:
            raise DataError(f"row {number} has no id in column {column!r}: every row needs one")
        if text in seen:
            raise DataError(f"id {text!r} stands twice in column {column!r}: rows {seen[text]} and {number}")
        seen[text] = number
    return list(seen)


def _read(config: DataConfig) -> pa.Table:
    if not config.name:
        raise DataError(f"data.name is not set: a file, folder, hub id, or one of {', '.join(asset_names())}")
    if config.name in asset_names():
        return _read_file(next(path for path in ASSETS.glob(f"{config.name}.*") if path.suffix in SUFFIXES))
    path = Path(config.name).expanduser()
    if path.is_dir():
        return _from_folder(path, config)
    if path.is_file():
        return _read_file(path)
    typo = difflib.get_close_matches(config.name, asset_names(), n=1, cutoff=0.8)
    if typo and "/" not in config.name:
        raise DataError(f"data.name {config.name!r} is no asset, file or folder here (did you mean {typo[0]!r}?)")
    if path.suffix in SUFFIXES or not _HUB_ID.fullmatch(config.name):
        raise DataError(f"data file {config.name} does not exist{did_you_mean(config.name, asset_names())}")
    return _from_hub(config)


def _read_file(path: Path) -> pa.Table:
    import pyarrow.csv
    import pyarrow.parquet as pq

    try:
        if path.suffix == ".parquet":
            return pq.read_table(path)
        if path.suffix == ".csv":
            return pyarrow.csv.read_csv(path)
        if path.suffix == ".jsonl":
            return _table(list(_json_lines(path)), path)
        if path.suffix == ".json":
            return _table(_json_rows(path), path)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"data file {path} cannot be read: {error}") from None
    raise DataError(f"data file {path}: its ending must be one of {', '.join(SUFFIXES)}")


def _json_lines(path: Path) -> Iterator[Any]:
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}:{number}: not JSON: {error}") from None


def _json_rows(path: Path) -> list[Any]:
    try:
        rows = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}") from None
    if isinstance(rows, dict):  # {"data": [...]} is how several well-known sets are published
        rows = next((value for value in rows.values() if isinstance(value, list)), rows)
    if not isinstance(rows, list):
        raise DataError(f"{path}: not a list of rows")
    return rows


def _table(rows: list[Any], path: Path) -> pa.Table:
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"{path}: row {number} is {type(row).__name__}, not an object")
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {}
    for name in names:
        try:
            columns[name] = pa.array([row.get(name) for row in rows], from_pandas=False)
        except (pa.ArrowException, UnicodeEncodeError) as error:
            raise DataError(f"{path}: column {name!r} does not hold one type in all rows: {error}") from None
    return pa.table(columns)


def _from_folder(path: Path, config: DataConfig) -> pa.Table:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:  # the library raises many kinds
        raise DataError(f"data folder {path} is not one that `datasets` saved: {error}") from None
    return _of_dataset(loaded, config)


def _from_hub(config: DataConfig) -> pa.Table:
    import datasets

    try:
        loaded = datasets.load_dataset(config.name, config.config, split=config.split)
    except Exception as error:  # network, names, scripts: the library raises many kinds
        raise DataError(
            f"data.name {config.name!r} is no asset{did_you_mean(config.name, asset_names())}, no file or folder here "
            f"(assets: {', '.join(asset_names())}), and the hub did not give it: {type(error).__name__}: {error}"
        ) from None
    return _of_dataset(loaded, config)


def _of_dataset(loaded: Any, config: DataConfig) -> pa.Table:
    if isinstance(loaded, dict):
        splits = list(loaded)
        split = config.split or (splits[0] if len(splits) == 1 else None)
        if split not in loaded:
            raise DataError(f"data.split {config.split!r} is not one of {config.name}'s: {', '.join(splits)}")
        loaded = loaded[split]
    if config.max_samples is not None:
        loaded = loaded.select(range(min(len(loaded), config.max_samples)))
    return loaded.with_format("arrow")[:] if len(loaded) else loaded.data.table.slice(0, 0)


def expected_work(table: pa.Table, columns: set[str]) -> list[int]:
    """Characters of the prompt's columns, by row: what a sample is expected to cost."""
    totals = [0] * len(table)
    for name in columns:
        for number, value in enumerate(table.column(name).to_pylist()):
            totals[number] += len(value) if isinstance(value, str) else len(str(value))
    return totals


class Inputs:
    """The rows of a run's `inputs/`, mapped from disk: any row or range without reading the rest."""

    def __init__(self, path: Path) -> None:
        self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self._starts = [0]
        for number in range(self._reader.num_record_batches):
            self._starts.append(self._starts[-1] + self._reader.get_batch(number).num_rows)

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def columns(self) -> list[str]:
        return list(self.schema.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One row, `index` and `id` included."""
        batch = bisect.bisect_right(self._starts, index) - 1
        row: dict[str, Any] = self._reader.get_batch(batch).slice(index - self._starts[batch], 1).to_pylist()[0]
        return row

    @property
    def schema(self) -> pa.Schema:
        return self._reader.schema

    def rows(self, start: int, stop: int) -> pa.Table:
        """Rows start..stop-1 as a table."""
        parts = []
        for number in range(self._reader.num_record_batches):
            low, high = max(start, self._starts[number]), min(stop, self._starts[number + 1])
            if low < high:
                parts.append(self._reader.get_batch(number).slice(low - self._starts[number], high - low))
        return pa.Table.from_batches(parts, schema=self._reader.schema)

    def values(self, name: str) -> list[Any]:
        """One column of all rows."""
        batches = (self._reader.get_batch(number) for number in range(self._reader.num_record_batches))
        return [value for batch in batches for value in batch.column(name).to_pylist()]

    def ids(self, start: int, stop: int) -> list[str]:
        """The ids of rows start..stop-1."""
        found: list[str] = self.rows(start, stop).column("id").to_pylist()
        return found


def table_bytes(table: pa.Table) -> bytes:
    """The table as an Arrow file with small batches, ready for `Inputs`."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks(), max_chunksize=_ROWS_A_BATCH)
    content: bytes = sink.getvalue().to_pybytes()
    return content
