"""Take requests from a source as an engine needs them, encoded ahead of time in a thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from hpcjobs.config import GenerationConfig
from hpcjobs.engines.base import Source
from hpcjobs.engines.encoding import Answer, Encoded, TextCodec
from hpcjobs.requests import Completion, Request

# After a pause the source is asked again when this share of the running requests is finished: it waits for their
# completions, and each question may cost it a look at a shared disk.
_ASK_AGAIN = 0.75


class TextThread:
    """A thread for the tokenizer, which only one thread at a time may use."""

    def __init__(self, codec: TextCodec) -> None:
        self._codec, self.lock = codec, threading.Lock()
        self._pool = ThreadPoolExecutor(1, "tokenizer")

    def __enter__(self) -> TextThread:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def encode(self, request: Request) -> Future[Encoded | Completion]:
        """Encode a request in the thread."""
        return self._pool.submit(self._encode, request)

    def answer(self, made: list[int], generation: GenerationConfig) -> Future[Answer]:
        """Decode new tokens in the thread."""
        return self._pool.submit(self._answer, made, generation)

    def _encode(self, request: Request) -> Encoded | Completion:
        with self.lock:
            return self._codec.encode(request)

    def _answer(self, made: list[int], generation: GenerationConfig) -> Answer:
        with self.lock:
            return self._codec.answer(made, generation)


class Intake:
    """Takes requests from a source, `ahead` more than needed, and returns them encoded, in order."""

    def __init__(self, requests: Source, text: TextThread, ahead: int) -> None:
        self._requests, self._text, self._ahead = requests, text, ahead
        self._encoding: deque[tuple[Request, Future[Encoded | Completion]]] = deque()
        self._ask_below: float | None = None
        self.ended = False

    @property
    def empty(self) -> bool:
        """Whether no request is waiting here."""
        return not self._encoding

    def take(self, most: int, in_hand: int) -> list[Encoded | Completion]:
        """Up to `most` requests for an engine that has `in_hand` running; none while the source pauses.

        An engine with nothing running gets at least one, unless the source has ended.
        """
        if self._ask_below is not None and in_hand + len(self._encoding) <= self._ask_below:
            self._ask_below = None
        self._look_ahead(most + self._ahead if most else 0, in_hand)
        return [self._encoding.popleft()[1].result() for _ in range(min(most, len(self._encoding)))]

    def rest(self) -> Iterator[Request | None]:
        """The requests that were not taken, for another engine; it refuses once more what was refused here."""
        while self._encoding:
            yield self._encoding.popleft()[0]
        yield from self._requests
        self.ended = True

    def _look_ahead(self, wanted: int, in_hand: int) -> None:
        while not self.ended and self._ask_below is None and len(self._encoding) < wanted:
            request = next(self._requests, _END)
            if request is _END:
                self.ended = True
            elif isinstance(request, Request):
                self._encoding.append((request, self._text.encode(request)))
            elif running := in_hand + len(self._encoding):  # a pause
                self._ask_below = int(running * _ASK_AGAIN)


_END = object()
