"""What an engine is."""

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
    """A batch size as a number, for who knows nothing of memory."""
    return AUTO_BATCH if batch_size == "auto" else batch_size


class Engine(Protocol):
    """Turns requests into completions, in any order, one for each; it never raises for a bad request.

    `batch_size` is how many requests it likes to have in hand at once; it may shrink when memory runs out.
    """

    @property
    def batch_size(self) -> int: ...

    def stream(self, requests: Source) -> Iterator[Completion]:
        """Take requests as there is room, give completions as they finish."""
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
