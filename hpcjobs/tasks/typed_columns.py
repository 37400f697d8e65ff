"""Columns of texts in files that have types of their own, as values of the types that `data.types` names."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pyarrow as pa

from hpcjobs.config.schema import ColumnType
from hpcjobs.errors import DataError, did_you_mean
from hpcjobs.run_folder.json_columns import is_json, python_values
from hpcjobs.tasks.csv_types import csv_field, csv_values


def typed(table: pa.Table, types: Mapping[str, ColumnType], title: str) -> pa.Table:
    """The table with its columns of texts as `types` says; a column that has other values must have that type already.

    Raises a DataError, with the row, for a text that is none. Names that are no columns are `check_named`'s.
    """
    for name, kind in types.items():
        if name in table.column_names:
            place = table.column_names.index(name)
            table = table.set_column(place, *_typed(table.schema.field(name), table.column(name), kind, title))
    return table


def check_named(types: Mapping[str, ColumnType], table: pa.Table, title: str) -> None:
    """Raise a DataError for a type of a column that is not there."""
    for name in types:
        if name not in table.column_names:
            raise DataError(f"data.types: {title} has no column {name!r}{did_you_mean(name, table.column_names)}")


def _typed(field: pa.Field, column: pa.ChunkedArray, kind: ColumnType, title: str) -> tuple[pa.Field, pa.ChunkedArray]:
    wanted = csv_field(field.name, kind)
    if is_json(field) and kind == "json":  # of values of several types those that are texts
        values = python_values(field, column)
        texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
    elif pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
        texts = column.to_pylist()
    elif kind == "json" or field.type == wanted.type:
        return field, column
    else:
        raise DataError(f"data.types: column {field.name!r} of {title} has {field.type}, neither text nor {kind}")
    made = csv_values(texts, kind, lambda row: f"data set {title}: row {row}, column {field.name!r}")
    return wanted, made if isinstance(made, pa.ChunkedArray) else pa.chunked_array([made], wanted.type)
