"""Rows of a .json file: a list of objects, or an object that has one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from hpcjobs.errors import DataError, did_you_mean
from hpcjobs.tasks.column_types import rows_table
from hpcjobs.tasks.file_names import of_split, open_bytes
from hpcjobs.tasks.jsonl import BOM, read_jsonl, utf8_text


def read_json(path: Path, split: str | None) -> pa.Table:
    """The rows in their order, of an object's list `split` where it is given; JSON Lines by this name are read too."""
    with open_bytes(path) as file:
        content = file.read().removeprefix(BOM)
    try:
        found = json.loads(utf8_text(content, path))
    except RecursionError:
        raise DataError(f"{path}: JSON nested too deep for Python") from None
    except ValueError as error:
        if getattr(error, "msg", "") == "Extra data" and content.lstrip()[:1] == b"{":
            of_split([path], split, str(path))
            return read_jsonl(path)
        raise DataError(f"{path}: not JSON: {error}") from None
    return rows_table(_rows(found, path, split), lambda number: f"{path}: row {number}")


def _rows(found: Any, path: Path, split: str | None) -> list[Any]:
    if isinstance(found, list):
        of_split([path], split, str(path))
        return found
    lists = [name for name, value in found.items() if isinstance(value, list)] if isinstance(found, dict) else []
    if not lists:
        raise DataError(f"{path}: not a list of rows")
    valid = ", ".join(map(repr, lists))
    if split is None and len(lists) > 1:
        raise DataError(f"{path}: an object with several lists: set data.split to one of {valid}")
    if split is not None and split not in lists:
        raise DataError(f"data.split {split!r} is no list of {path}: it has {valid}{did_you_mean(split, lists)}")
    rows: list[Any] = found[split or lists[0]]
    return rows
