"""The interface of engines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol

from hpcjobs.requests import Completion, Request

# A None says: nothing to hand out now. Finish what you hold, then ask again. So an engine that looks ahead
# never sits on requests while their giver waits for them.
Source = Iterator[Request | None]


BatchSize = int | Literal["auto"]
# What "auto" is where nothing is known of memory.
AUTO_BATCH = 16


def rows_at_once(batch_size: BatchSize) -> int:
    """A batch size as a number, for callers that know nothing about memory."""
    return AUTO_BATCH if batch_size == "auto" else batch_size


class Engine(Protocol):
    """Turns requests into completions, one for each, in any order. It never raises for a bad request.

    `batch_size` is how many requests it prefers to have running; it may shrink when memory runs out.
    """

    @property
    def batch_size(self) -> int:
        """How many requests the engine prefers to have running at once."""
        ...

    def stream(self, requests: Source) -> Iterator[Completion]:
        """Take requests as there is room, and yield completions as they finish."""
        ...


def take(requests: Source, most: int) -> tuple[list[Request], bool]:
    """Up to `most` requests, fewer at a pause; and whether the source has ended."""
    window: list[Request] = []
    for request in requests:
        if request is not None:
            window.append(request)
        if len(window) >= most or (request is None and window):
            return window, False
    return window, True
