"""JSON that restores Python values exactly, including tuples, sets, bytes, arrays and keys that are not text."""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Hashable
from typing import Any

import numpy as np

# Marks dicts that encode other types; a user's dict with this key is encoded as pairs.
_KIND = "__kind__"


def encode(value: object) -> str:
    """`value` as one line of JSON. Raises a TypeError that names what cannot be encoded."""
    return json.dumps(_plain(value), separators=(",", ":"))


def decode(text: str) -> Any:
    """The value that was encoded. NumPy scalars become Python numbers."""
    return json.loads(text, object_hook=_back)


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int | float | str):
        return value if type(value) in (bool, int, float, str, type(None)) else _builtin(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value) and _KIND not in value:
            return {key: _plain(item) for key, item in value.items()}
        return _ours("dict", [[_plain(key), _plain(item)] for key, item in value.items()])
    if isinstance(value, tuple):
        return _ours("tuple", [_plain(item) for item in value])
    if isinstance(value, set | frozenset):
        return _ours("set", sorted((_plain(item) for item in value), key=repr))
    if isinstance(value, bytes):
        return _ours("bytes", base64.b64encode(value).decode())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufUS":
        return _ours("array", [value.dtype.str, value.tolist()])
    if isinstance(value, datetime.datetime | datetime.date):
        return _ours(type(value).__name__, value.isoformat())
    raise TypeError(f"a {type(value).__module__}.{type(value).__name__} cannot be kept as JSON: {value!r}"[:300])


def _builtin(value: Any) -> bool | int | float | str:
    """A number or text of a subclass (numpy.float64 is a float) as its built-in type."""
    kind = next(kind for kind in (bool, int, float, str) if isinstance(value, kind))
    return kind(value)


def _ours(kind: str, value: object) -> dict[str, object]:
    return {_KIND: kind, "value": value}


def _back(found: dict[str, Any]) -> Any:
    value = found.get("value")
    match found.get(_KIND):
        case None:
            return found
        case "dict":
            return {_hashable(key): item for key, item in found["value"]}
        case "tuple":
            return tuple(found["value"])
        case "set":
            return {_hashable(item) for item in found["value"]}
        case "bytes":
            return base64.b64decode(found["value"])
        case "array":
            return np.array(found["value"][1], dtype=found["value"][0])
        case "datetime":
            return datetime.datetime.fromisoformat(found["value"])
        case "date":
            return datetime.date.fromisoformat(found["value"])
    raise ValueError(f"not a value of ours: {value!r}"[:300])


def _hashable(value: Hashable | list[Hashable]) -> Hashable:
    return tuple(value) if isinstance(value, list) else value
