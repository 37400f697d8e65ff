"""Excerpts of long texts that differ: the part around the first difference."""

from __future__ import annotations

from collections.abc import Sequence

# Characters that are shown of a text, and how many of them stand before the first difference.
_SHOWN, _BEFORE = 200, 40


def first_difference(texts: Sequence[str]) -> int:
    """The first position at which the texts differ; the length of the shortest if the others only continue."""
    places = enumerate(zip(*texts, strict=False))
    return next((place for place, characters in places if len(set(characters)) > 1), min(map(len, texts)))


def excerpt(text: str, place: int) -> str:
    """A text on one line, with control characters escaped; a long one is cut around the position `place`."""
    if len(text) <= _SHOWN:
        return repr(text)
    start = max(0, min(place, len(text)) - _BEFORE)
    return f"{'... ' if start else ''}{text[start : start + _SHOWN]!r}{' ...' if start + _SHOWN < len(text) else ''}"
