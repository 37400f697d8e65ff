"""What a JSON value may not have: half a surrogate pair, which no UTF-8 holds, and too many levels."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

# Python's own json takes a place on its stack for each level, in every process that reads the value again, so there is
# an end.
DEEPEST = 256


def json_problem(value: Any) -> str | None:
    """Why a value that `json.loads` gave cannot be kept; None where it can."""
    if _deeper(value, DEEPEST):
        return f"nested more than {DEEPEST} deep"
    return next(filter(None, map(half_pair, _texts(value))), None)


def half_pair(text: str) -> str | None:
    """Which character of a text is none; None where all are."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        return (
            f"{half} is half of a surrogate pair, and no character (character {error.start} of the text {text[:80]!a})"
        )
    return None


def _deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inside: Iterable[Any] = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_deeper(one, levels - 1) for one in inside)


def _texts(value: Any) -> Iterable[str]:
    """All texts within a value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        yield from chain.from_iterable(map(_texts, value))
    elif isinstance(value, dict):
        yield from chain.from_iterable(map(_texts, chain.from_iterable(value.items())))
