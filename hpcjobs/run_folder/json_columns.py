"""Columns that no Arrow type holds exactly: each value is JSON text, in a text column whose field is marked.

The mark is metadata, not an extension type: Parquet keeps it, every reader sees a text column, and Python's `json`
restores each value exactly. (The Json type of `datasets` 5 decodes NaN to None and refuses 70-bit integers; earlier
versions refuse its files.) Columns of Arrow's own type `arrow.json`, which users' files may have, are read the same
way.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

_KEY, _VALUE = b"hpcjobs", b"json"


def json_field(name: str) -> pa.Field:
    """The field of a column of JSON texts; null stands for JSON's null."""
    return pa.field(name, pa.string(), metadata={_KEY: _VALUE})


def json_array(values: Sequence[object]) -> pa.Array | pa.ChunkedArray:
    """Python values as an array of JSON texts."""
    texts = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
    return pa.array(texts, pa.string())


def is_json(field: pa.Field) -> bool:
    """Whether the texts of a field are JSON."""
    if (field.metadata or {}).get(_KEY) == _VALUE:
        return bool(pa.types.is_string(field.type) or pa.types.is_large_string(field.type))
    return getattr(field.type, "extension_name", "") == "arrow.json"


def python_rows(table: pa.Table | pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows as Python values, with JSON texts decoded."""
    rows: list[dict[str, Any]] = table.to_pylist()
    for field in table.schema:
        if _has_json(field):
            for row in rows:
                row[field.name] = _decoded(field, row[field.name])
    return rows


def python_values(field: pa.Field, values: pa.Array | pa.ChunkedArray) -> list[Any]:
    """One column as Python values, with JSON texts decoded."""
    found: list[Any] = values.to_pylist()
    return [_decoded(field, value) for value in found] if _has_json(field) else found


def _has_json(field: pa.Field) -> bool:
    return is_json(field) or any(_has_json(child) for child in _children(field.type))


def _children(kind: pa.DataType) -> list[pa.Field]:
    if pa.types.is_map(kind):
        return [kind.key_field, kind.item_field]
    if pa.types.is_struct(kind):
        return list(kind)
    return [kind.value_field] if is_list(kind) else []


def is_list(kind: pa.DataType) -> bool:
    """Whether a type is a list in any of Arrow's layouts, but not a map."""
    return any(is_kind(kind) for is_kind in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))


def _decoded(field: pa.Field, value: Any) -> Any:
    """A value that `to_pylist` gave, with the JSON texts in it decoded."""
    if value is None:
        return None
    if is_json(field):
        return json.loads(value)
    if not _has_json(field):
        return value
    children = _children(field.type)
    if pa.types.is_map(field.type):
        return [tuple(_decoded(child, one) for child, one in zip(children, pair, strict=True)) for pair in value]
    if pa.types.is_struct(field.type):
        return {child.name: _decoded(child, value[child.name]) for child in children}
    return [_decoded(children[0], one) for one in value]
