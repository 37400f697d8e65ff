"""Data sets: from an asset, a file, a `datasets` folder or the hub, to a table with `index` and `id`."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hpcjobs.assets import ASSETS, SUFFIXES, asset_names
from hpcjobs.config import DataConfig
from hpcjobs.errors import DataError, did_you_mean
from hpcjobs.run_folder.inputs import OWN_COLUMN
from hpcjobs.tasks.jsonl import read_jsonl, rows_table

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_ROWS_AS_OBJECTS = 65_536


def load_table(config: DataConfig) -> pa.Table:
    """The rows with `index` (int64, 0..N-1) and `id` (unique text), in their order; else a DataError."""
    table = _read(config)
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if twice:
        raise DataError(f"data set {config.name} has two columns of one name: {', '.join(twice)}")
    if config.max_samples is not None:
        table = table.slice(0, config.max_samples)
    ours = {"index": pa.chunked_array([np.arange(len(table))]), "id": _ids(table, config.id_column)}
    for name, values in ours.items():
        if name in table.column_names and _same(table.column(name), values):
            table = table.drop_columns([name])  # the same values: no need to keep them twice
    table = table.rename_columns([f"source_{c}" if OWN_COLUMN.fullmatch(c) else c for c in table.column_names])
    return table.add_column(0, "index", ours["index"]).add_column(1, "id", ours["id"])


def _same(theirs: pa.ChunkedArray, ours: pa.ChunkedArray) -> bool:
    """Whether Python finds all values equal; the first ones already tell of most columns that they are not."""
    if theirs.type == ours.type:
        return bool(theirs.equals(ours))
    return all(theirs[part].to_pylist() == ours[part].to_pylist() for part in _slices(len(theirs)))


def _slices(rows: int) -> Iterator[slice]:
    """All rows, some at a time: Python's objects of all of them would be ten times their columns."""
    return (slice(start, start + _ROWS_AS_OBJECTS) for start in range(0, rows, _ROWS_AS_OBJECTS))


def _ids(table: pa.Table, id_column: str | None) -> pa.ChunkedArray:
    name = id_column or ("id" if "id" in table.column_names else None)
    if name is None:
        return pa.chunked_array([np.arange(len(table))]).cast(pa.string())
    if name not in table.column_names:
        raise DataError(
            f"data.id_column {name!r} is not a column{did_you_mean(name, table.column_names)}; "
            f"columns: {', '.join(table.column_names)}"
        )
    column = table.column(name)
    if (missing := pc.index(pc.is_null(column), True).as_py()) >= 0:
        raise _no_id(missing, name)
    ids = _texts(column)
    if (empty := pc.index(ids, "").as_py()) >= 0:
        raise _no_id(empty, name)
    if pc.count_distinct(ids).as_py() < len(ids):
        raise _twice(ids, name)
    return ids


def _texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """`str` of each value, none of which is null."""
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column.cast(pa.string())
    parts = [pa.array(map(str, column[part].to_pylist()), pa.string()) for part in _slices(len(column))]
    return pa.chunked_array(parts, pa.string())


def _no_id(row: int, name: str) -> DataError:
    return DataError(f"row {row} has no id in column {name!r}: every row needs one")


def _twice(ids: pa.ChunkedArray, name: str) -> DataError:
    """Names the first id that stands twice."""
    seen: dict[str, int] = {}
    for number, text in enumerate(value for part in _slices(len(ids)) for value in ids[part].to_pylist()):
        if text in seen:
            return DataError(f"id {text!r} stands twice in column {name!r}: rows {seen[text]} and {number}")
        seen[text] = number
    raise AssertionError("no id stands twice")


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
            return read_jsonl(path)
        if path.suffix == ".json":
            return rows_table(_json_rows(path), path)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"data file {path} cannot be read: {error}") from None
    raise DataError(f"data file {path}: its ending must be one of {', '.join(SUFFIXES)}")


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


def expected_work(table: pa.Table, columns: set[str]) -> npt.NDArray[np.int64]:
    """Characters of the prompt's columns, by row: what a sample is expected to cost."""
    totals = np.zeros(len(table), np.int64)
    for name in columns:
        totals += _lengths(table.column(name))
    return totals


def _lengths(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """`len(str(value))` of each value."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.asarray(pc.fill_null(pc.utf8_length(column), len("None")).to_numpy(), np.int64)
    parts = [np.array([len(str(value)) for value in column[part].to_pylist()]) for part in _slices(len(column))]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
