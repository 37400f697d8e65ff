"""The files of a data set, read one after the other to one table."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import pyarrow as pa

from hpcjobs.config import DataConfig
from hpcjobs.errors import DataError
from hpcjobs.tasks.arrow_rows import read_arrow, read_parquet, same_columns
from hpcjobs.tasks.column_types import joined, united_schema
from hpcjobs.tasks.csv_rows import DELIMITERS, read_csv
from hpcjobs.tasks.file_names import files_in, of_split, one_kind, saved_in
from hpcjobs.tasks.json_rows import read_json
from hpcjobs.tasks.jsonl import read_jsonl
from hpcjobs.tasks.kept_values import plain
from hpcjobs.tasks.typed_columns import typed

_PACKABLE = (".jsonl", ".json", *DELIMITERS)


def read_folder(folder: Path, config: DataConfig) -> pa.Table:
    """The rows of a folder of shards, those of `data.split` where it has several splits."""
    files = files_in(folder)
    if inside := saved_in(folder):
        raise DataError(f"data folder {folder} is not one that `datasets` saved; {inside} is: set data.name to it")
    if not files:
        raise DataError(f"data folder {folder} is not one that `datasets` saved, and has no data files")
    one_kind(files, f"data folder {folder} is not one that `datasets` saved, and")
    return read_files(of_split(files, config.split, str(folder), folder), config.model_copy(update={"split": None}))


def read_files(files: Sequence[Path], config: DataConfig) -> pa.Table:
    """The rows of files of one kind, in the order of the files.

    JSON's rows may lack columns, and a column takes the type that holds all files' values. Other files have the same
    columns, and one type in all.
    """
    kind = one_kind(files, f"data.name {config.title}")
    if config.config is not None:
        raise DataError(f"data.config {config.config!r} is for data sets of the hub, and {config.title} is a file")
    if kind not in DELIMITERS:
        check_no_delimiter(config)
    if kind != ".json" or len(files) > 1:
        files = of_split(files, config.split, config.title)
        config = config.model_copy(update={"split": None})
    parts, left = list[pa.Table](), config.max_samples
    for path in files:
        parts.append(_read(path, kind, config, left))
        left = None if left is None else max(0, left - len(parts[-1]))
    table = parts[0] if len(parts) == 1 else _together(parts, files, kind)
    return table if kind in DELIMITERS else typed(table, config.types, config.title)


def check_no_delimiter(config: DataConfig) -> None:
    """Raise a DataError for a delimiter where it would have no effect."""
    if config.delimiter is not None:
        kinds = " and ".join(DELIMITERS)
        raise DataError(f"data.delimiter is for {kinds} files, and {config.title} is none: leave it out")


def _together(parts: Sequence[pa.Table], files: Sequence[Path], kind: str) -> pa.Table:
    by_rows = kind in (".jsonl", ".json")
    schema = reduce(united_schema, (part.schema for part in parts)) if by_rows else same_columns(parts, files)
    return joined(parts, schema)


def _read(path: Path, kind: str, config: DataConfig, rows: int | None) -> pa.Table:
    """The rows of a file; of Parquet and Arrow files the first `rows` alone, since each is looked at."""
    try:
        if path.suffix.lower() in (".gz", ".zst") and kind not in _PACKABLE:
            raise DataError(f"data file {path}: {kind} is packed already; unpack it first")
        if kind in DELIMITERS:
            return read_csv(path, config.delimiter, config.types)
        if kind == ".jsonl":
            return read_jsonl(path)
        if kind == ".json":
            return read_json(path, config.split)
        table = read_parquet(path) if kind == ".parquet" else read_arrow(path)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, pa.ArrowException) as error:
        raise DataError(f"data file {path} cannot be read: {error}") from None
    return plain(table if rows is None else table.slice(0, rows), f"data file {path}")
