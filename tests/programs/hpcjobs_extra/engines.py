"""Engines: one that needs no model, and one over the model that hpcjobs loads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from hpcjobs.config import GenerationConfig, ModelConfig
from hpcjobs.engines.base import Engine, Source
from hpcjobs.requests import Completion


class Echo:
    """Answers with the prompt. `model.name` is put before it: a server's model might be called so."""

    weights: ClassVar[bool] = False
    batch_size = 8

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    @classmethod
    def from_config(cls, model: ModelConfig, generation: GenerationConfig) -> Engine:
        return cls(f"{model.name}: ")

    def stream(self, requests: Source) -> Iterator[Completion]:
        for request in requests:
            if request is not None:
                yield Completion(index=request.index, text=f"{self._prefix}{request.prompt}", finish_reason="stop")


class Mirror:
    """Answers with the prompt's tokens, last one first."""

    def __init__(self, model: Any, tokenizer: Any, generation: GenerationConfig, batch_size: int) -> None:
        self._model, self._tokenizer, self.batch_size = model, tokenizer, batch_size

    def stream(self, requests: Source) -> Iterator[Completion]:
        for request in requests:
            if request is not None:
                tokens = self._tokenizer(request.prompt)["input_ids"]
                text = self._tokenizer.decode(tokens[::-1])
                yield Completion(
                    index=request.index,
                    text=text,
                    finish_reason="stop",
                    prompt_tokens=len(tokens),
                    completion_tokens=len(tokens),
                )
