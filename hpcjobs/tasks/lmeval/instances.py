"""The instances of an lm_eval task, as inputs/ stores them."""

from __future__ import annotations

from typing import Any, TypedDict


class PlannedInstance(TypedDict):
    """An lm_eval Instance: its request type and arguments, such as context and continuation."""

    type: str
    arguments: tuple[Any, ...]
    idx: int
    repeats: int | None


class PlannedDocument(TypedDict):
    """A document of a task with its instances."""

    id: str
    task: str
    doc: object
    requests: list[PlannedInstance]
