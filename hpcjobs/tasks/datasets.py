"""Data sets: from an asset, a file, a `datasets` folder or the hub, to a table with `index` and `id`."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hpcjobs.assets import ASSETS, SUFFIXES, asset_names
from hpcjobs.config import DataConfig
from hpcjobs.config.path_names import is_path, near_file
from hpcjobs.errors import DataError, did_you_mean
from hpcjobs.run_folder.inputs import OWN_COLUMN
from hpcjobs.run_folder.json_columns import is_json
from hpcjobs.tasks.arrow_rows import roomy
from hpcjobs.tasks.file_names import files_of, is_pattern, is_saved
from hpcjobs.tasks.ids import row_ids, slices
from hpcjobs.tasks.kept_values import check_kept, plain
from hpcjobs.tasks.read_files import check_no_delimiter, read_files, read_folder
from hpcjobs.tasks.typed_columns import check_named, typed

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def load_table(config: DataConfig) -> pa.Table:
    """The rows with `index` (int64, 0..N-1) and `id` (unique text), in their order; else a DataError."""
    table = _read(config)
    check_named(config.types, table, config.title)
    return _prepared(table, config)


def load_beside(config: DataConfig) -> pa.Table:
    """`load_table` of a data set that may lack columns of `types`, which are those of another data set."""
    return _prepared(_read(config), config)


def _prepared(table: pa.Table, config: DataConfig) -> pa.Table:
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if twice:
        raise DataError(f"data set {config.title} has two columns of one name: {', '.join(twice)}")
    if config.max_samples is not None:
        table = table.slice(0, config.max_samples)
    ours = {"index": pa.chunked_array([np.arange(len(table))]), "id": row_ids(table, config.id_column)}
    for name, values in ours.items():
        if name in table.column_names and _same(table, name, values):
            table = table.drop_columns([name])  # the same values: no need to keep them twice
    table = roomy(table)
    check_kept(table, config.title)
    table = table.rename_columns([f"source_{c}" if OWN_COLUMN.fullmatch(c) else c for c in table.column_names])
    return table.add_column(0, "index", ours["index"]).add_column(1, "id", ours["id"])


def _same(table: pa.Table, name: str, ours: pa.ChunkedArray) -> bool:
    """Whether the table's column has the same values of the same type: to Python True is 1, and so is 1.0."""
    column, field = table.column(name), table.schema.field(name)
    if pa.types.is_integer(ours.type):
        return pa.types.is_integer(column.type) and _all(pc.equal(column, ours))
    return column.type == ours.type and not is_json(field) and bool(column.equals(ours))


def _all(equal: pa.ChunkedArray) -> bool:
    return bool(pc.all(equal, skip_nulls=False, min_count=0).as_py())


def on_hub(name: str) -> bool:
    """Whether a name can only be a data set of the hub: it is no asset, file, pattern or folder."""
    here = name in asset_names() or is_pattern(name) or is_path(name) or Path(name).expanduser().exists()
    return not here and bool(_HUB_ID.fullmatch(name))


def _read(config: DataConfig) -> pa.Table:
    if not config.title:
        raise DataError(f"data.name is not set: a file, folder, hub id, or one of {', '.join(asset_names())}")
    if not isinstance(config.name, str) or is_pattern(config.name):
        return read_files(files_of(config.names), config)
    return _named(config.name, config)


def _named(name: str, config: DataConfig) -> pa.Table:
    """The rows of one asset, folder, file or data set of the hub."""
    if name in asset_names():
        return read_files([next(path for path in ASSETS.glob(f"{name}.*") if path.suffix in SUFFIXES)], config)
    path = Path(name).expanduser()
    if path.is_dir():
        return _from_folder(path, config) if is_saved(path) else read_folder(path, config)
    if path.is_file():
        return read_files([path], config)
    typo = difflib.get_close_matches(name, asset_names(), n=1, cutoff=0.8)
    if typo and "/" not in name:
        raise DataError(f"data.name {name!r} is no asset, file or folder here (did you mean {typo[0]!r}?)")
    if not on_hub(name):
        raise DataError(f"data file {name} does not exist{near_file(name, asset_names())}")
    return _from_hub(config)


def _from_folder(path: Path, config: DataConfig) -> pa.Table:
    import datasets

    if config.config is not None:
        raise DataError(f"data.config {config.config!r} is for data sets of the hub, and {path} is a folder")
    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:  # the library raises many kinds
        raise DataError(f"data folder {path} is not one that `datasets` saved: {error}") from None
    if not isinstance(loaded, dict) and config.split not in (None, str(loaded.split or "train")):
        raise DataError(f"data.split {config.split!r} is not one of {path}'s: {loaded.split or 'train'}")
    return _of_dataset(loaded, config)


def _from_hub(config: DataConfig) -> pa.Table:
    import datasets

    name = config.title
    try:
        loaded = datasets.load_dataset(name, config.config, split=config.split)
    except Exception as error:  # network, names, scripts: the library raises many kinds
        raise DataError(
            f"data.name {name!r} is no asset{did_you_mean(name, asset_names())}, no file or folder here "
            f"(assets: {', '.join(asset_names())}), and the hub did not give it: {type(error).__name__}: {error}"
        ) from None
    return _of_dataset(loaded, config)


def _of_dataset(loaded: Any, config: DataConfig) -> pa.Table:
    check_no_delimiter(config)
    if isinstance(loaded, dict):
        splits = list(loaded)
        split = config.split or (splits[0] if len(splits) == 1 else None)
        if split not in loaded:
            raise DataError(f"data.split {config.split!r} is not one of {config.title}'s: {', '.join(splits)}")
        loaded = loaded[split]
    if config.max_samples is not None:
        loaded = loaded.select(range(min(len(loaded), config.max_samples)))
    rows = loaded.with_format("arrow")[:] if len(loaded) else loaded.data.table.slice(0, 0)
    return typed(plain(rows, f"data set {config.title}"), config.types, config.title)


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
    parts = [np.array([len(str(value)) for value in column[part].to_pylist()]) for part in slices(len(column))]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
