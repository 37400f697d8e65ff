"""What a JSON value may not have: half a surrogate pair, which no UTF-8 holds, and too many levels."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import chain
from typing import Any

# Python's own json takes a place on its stack for each level, in every process that reads the value again, so there is
# an end.
DEEPEST = 256


def json_problem(value: object) -> str | None:
    """Why a value that `json.loads` gave cannot be kept; None where it can."""
    return too_deep(value) or next(filter(None, map(half_pair, _texts(value))), None)


def text_problem(text: str) -> str | None:
    """Why a text, which its column says is JSON, cannot be a value of a row; None where it can."""
    try:
        value = json.loads(text)
    except RecursionError:
        return "JSON nested too deep for Python"
    except ValueError as error:
        return f"{not_json(error)}: {text[:80]!r}"
    # Only an escape gives half a pair, and each level opens once: most texts need no closer look.
    return json_problem(value) if "\\u" in text or text.count("[") + text.count("{") > DEEPEST else None


def not_json(error: ValueError) -> str:
    """What `json.loads` says of a text that is one line or one value: the lines that it counts are none of the file."""
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} (character {error.pos + 1})"
    return f"not JSON: {error}"


def too_deep(value: object) -> str | None:
    """Says so of a value of too many levels; None of others."""
    return f"nested more than {DEEPEST} deep" if _deeper(value, DEEPEST) else None


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


def _deeper(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inside: Iterable[Any] = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_deeper(one, levels - 1) for one in inside)


def _texts(value: object) -> Iterable[str]:
    """All texts within a value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        yield from chain.from_iterable(map(_texts, value))
    elif isinstance(value, dict):
        yield from chain.from_iterable(map(_texts, chain.from_iterable(value.items())))
