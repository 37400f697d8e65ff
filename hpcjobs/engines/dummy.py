"""dummy: answers each prompt with a hash of it, without torch. It exercises a cluster's plumbing in a second."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator

from hpcjobs.engines.base import Source
from hpcjobs.records import Completion, Request


class DummyEngine:
    """Waits `delay` seconds a sample, then answers with 16 hex digits of the prompt's SHA-256."""

    def __init__(self, delay: float = 0.0, batch_size: int = 16) -> None:
        self._delay, self.batch_size = delay, batch_size

    def stream(self, requests: Source) -> Iterator[Completion]:
        for request in requests:
            if request is not None:
                yield self._complete(request)

    def _complete(self, request: Request) -> Completion:
        started = time.time()
        time.sleep(self._delay)
        text = request.prompt if isinstance(request.prompt, str) else json.dumps(request.prompt)
        words = len(text.split())
        answer = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
        return Completion(request.index, answer, "stop", words, 1, None, started, time.time() - started)
