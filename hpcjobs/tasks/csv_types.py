"""Texts as values of the type that `data.types` names; an empty text is null, but in a text column."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from hpcjobs.config.schema import ColumnType
from hpcjobs.errors import DataError
from hpcjobs.run_folder.json_columns import json_array, json_field
from hpcjobs.tasks.json_limits import json_problem

_TYPES = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}
_INTEGER = re.compile(r"\s*[+-]?[0-9]+\s*")
_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*|\s*[+-]?(nan|inf|infinity)\s*", re.I)
_BOOLEANS = {"true": True, "false": False}


def csv_field(name: str, kind: ColumnType) -> pa.Field:
    """The field of a column of such values."""
    return json_field(name) if kind == "json" else pa.field(name, _TYPES[kind])


def csv_values(
    texts: Sequence[str | None], kind: ColumnType, place: Callable[[int], str]
) -> pa.Array | pa.ChunkedArray:
    """The values of some rows; a DataError, at `place(number)`, for a text that is none."""
    if kind == "string":
        return pa.array(texts, pa.string())
    values = list[Any]()
    for number, text in enumerate(texts):
        try:
            values.append(_VALUES[kind](text) if text and text.strip() else None)
        except (ValueError, KeyError, RecursionError):
            raise DataError(f"{place(number)}: {str(text)[:80]!r} is no {kind}, and data.types says so") from None
        if kind == "json" and (problem := json_problem(values[-1])):
            raise DataError(f"{place(number)}: {problem}")
    return json_array(values) if kind == "json" else pa.array(values, _TYPES[kind], from_pandas=False)


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text) or not -(2**63) <= int(text) < 2**63:
        raise ValueError
    return int(text)


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text) or (math.isinf(float(text)) and "inf" not in text.lower()):
        raise ValueError
    return float(text)


_VALUES: dict[str, Callable[[str], Any]] = {
    "int64": _integer, "float64": _number, "bool": lambda text: _BOOLEANS[text.strip().lower()], "json": json.loads,
}  # fmt: skip
