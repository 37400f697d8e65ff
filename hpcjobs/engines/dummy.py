"""dummy: answers each prompt with a hash of it, without torch, to test a cluster's plumbing in a second."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from typing import ClassVar

from hpcjobs.config import GenerationConfig, ModelConfig
from hpcjobs.engines.base import Source, rows_at_once
from hpcjobs.requests import Completion, Likelihood, Prompt, Request, TaskType


class DummyEngine:
    """Waits `delay` seconds per sample, then answers with 16 hex digits of the prompt's SHA-256.

    Log-likelihoods are made from hashes of context and continuation, and are at most 0.
    """

    weights: ClassVar[bool] = False
    tasks: ClassVar[tuple[TaskType, ...]] = ("generate", "choice", "perplexity")

    def __init__(self, delay: float = 0.0, batch_size: int = 16) -> None:
        self._delay, self.batch_size = delay, batch_size

    @classmethod
    def from_config(cls, model: ModelConfig, generation: GenerationConfig) -> DummyEngine:
        """The engine for `model.engine: dummy`."""
        return cls(model.dummy_delay, rows_at_once(model.batch_size))

    def stream(self, requests: Source) -> Iterator[Completion]:
        """Completions in the order of the requests."""
        for request in requests:
            if request is not None:
                yield self._complete(request)

    def _complete(self, request: Request) -> Completion:
        started = time.time()
        time.sleep(self._delay)
        words, likelihood, texts = len(_text(request.prompt).split()), None, tuple[str, ...]()
        if request.task == "generate":
            answers = [_hash(request.prompt)] + [_hash(request.prompt, str(n)) for n in range(1, request.repeats)]
            texts = tuple(answers) if request.repeats > 1 else ()
            answer, made = answers[0], request.repeats
        else:
            likelihood = _likelihood(request)
            best = max(range(len(likelihood.logprobs)), key=likelihood.logprobs.__getitem__)
            answer, made = request.options[best] if request.options else "", 0
        took = time.time() - started
        return Completion(
            index=request.index,
            text=answer,
            finish_reason="stop",
            prompt_tokens=words,
            completion_tokens=made,
            error=None,
            started_at=started,
            seconds=took,
            texts=texts,
            likelihood=likelihood,
        )


def _text(prompt: Prompt) -> str:
    return prompt if isinstance(prompt, str) else json.dumps(prompt)


def _hash(prompt: Prompt, *more: str) -> str:
    text = "\0".join((_text(prompt), *more))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def _likelihood(request: Request) -> Likelihood:
    """One entry a pair, or one for the whole text: between -16 and 0 a word."""
    pairs = [(pair.context, pair.continuation) for pair in request.pairs] or [("", _text(request.prompt))]
    tokens = tuple(max(1, len(continuation.split())) for _, continuation in pairs)
    parts = [int(_hash(context, continuation), 16) / 2**60 for context, continuation in pairs]
    logprobs = tuple(-part * count for part, count in zip(parts, tokens, strict=True))
    return Likelihood(logprobs, tuple(part < 1 for part in parts), tokens, request.options)
