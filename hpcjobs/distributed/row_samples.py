"""Digests of some rows, by which ranks notice that they do not have the same data: one shuffled without a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

_FIRST = 8


def sampled(place: int) -> bool:
    """Whether a row is compared: the first eight, and then each whose number is a power of two.

    It does not depend on the number of rows, which an iterable does not know.
    """
    return place < _FIRST or place & (place - 1) == 0


def sampled_places(count: int) -> list[int]:
    """The numbers of the sampled rows among `count`."""
    return [*range(min(_FIRST, count)), *(1 << n for n in range(_FIRST.bit_length() - 1, (count - 1).bit_length()))]


def digest(row: object) -> str:
    """What is sure to be equal in equal rows: their texts, whole numbers and shape.

    Floats are left out, since each rank may have computed its own.
    """
    return hashlib.blake2b(repr(_exact(row)).encode(errors="surrogatepass"), digest_size=8).hexdigest()


def _exact(value: object) -> object:
    if value is None or isinstance(value, str | bytes | bool | int):
        return value if type(value) in (str, bytes, bool, int, type(None)) else repr(value)
    if isinstance(value, Mapping):
        return sorted((repr(_exact(key)), _exact(one)) for key, one in value.items())
    if isinstance(value, list | tuple):
        return [_exact(one) for one in value]
    return _of_library(value)


def _of_library(value: Any) -> object:
    """A row of a table, array or tensor. Others are compared by their type."""
    if hasattr(value, "to_pylist"):  # pyarrow
        return _exact(value.to_pylist())
    if hasattr(value, "with_format"):  # datasets; as arrow has it, so that no image is decoded
        return _exact(value.with_format("arrow")[:].to_pylist())
    if type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "values"):
        return _exact(value.values.tolist())
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        kind = str(value.dtype)
        exact = any(word in kind for word in ("int", "bool", "<U", "object"))
        return [kind, list(value.shape), _exact(value.reshape(-1)[:64].tolist()) if exact else None]
    return type(value).__qualname__
