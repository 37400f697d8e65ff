"""What an lm_eval task asks about a document, as inputs/ keeps it."""

from __future__ import annotations

from typing import Any, TypedDict


class Asked(TypedDict):
    """An lm_eval Instance: its request type, and the arguments of that (a context, and what is asked of it)."""

    type: str
    arguments: tuple[Any, ...]
    idx: int
    repeats: int | None


class AskedRow(TypedDict):
    """A document of a task with its requests."""

    id: str
    task: str
    doc: object
    requests: list[Asked]
