"""The interface of engines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal, Protocol

from hpcjobs.config import GenerationConfig, ModelConfig
from hpcjobs.requests import Completion, Request, TaskType

# None means that there is no request now: finish the running ones, then ask again. So an engine that looks ahead
# never keeps requests while the source waits for their completions.
Source = Iterator[Request | None]


BatchSize = int | Literal["auto"]
# The batch size for "auto" if nothing is known about memory.
AUTO_BATCH = 16


def rows_at_once(batch_size: BatchSize) -> int:
    """A batch size as a number, for callers that know nothing about memory."""
    return AUTO_BATCH if batch_size == "auto" else batch_size


class Engine(Protocol):
    """Turns requests into completions, one for each, in any order. It never raises for a bad request.

    The engine of an installed package is made as `Class(model, tokenizer, generation, batch_size)`, with the model in
    eval mode on this rank's device; or, if it has `from_config`, as an OwnModelEngine. `batch_size` is how many
    requests it prefers to have running; it may shrink when memory runs out.
    """

    @property
    def batch_size(self) -> int:
        """How many requests the engine prefers to have running at once."""
        ...

    def stream(self, requests: Source) -> Iterator[Completion]:
        """Take requests as there is room, and yield completions as they finish."""
        ...


class OwnModelEngine(Engine, Protocol):
    """An engine that loads its own model, or queries a server.

    `weights`: `model.name` is a folder or hub id whose weights it reads; the plan then checks, hashes and downloads
    them. `tasks`: the types of requests that it supports; ("generate",) by default.
    """

    weights: ClassVar[bool]
    tasks: ClassVar[tuple[TaskType, ...]]

    @classmethod
    def from_config(cls, model: ModelConfig, generation: GenerationConfig) -> Engine:
        """The engine of this rank, on the GPUs in CUDA_VISIBLE_DEVICES."""
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
