"""The nouns that stages hand to each other: a request, its completion, and the journal's record of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Chat = list[dict[str, str]]
Prompt = str | Chat
Target = str | list[str] | None


@dataclass(frozen=True, slots=True)
class Request:
    """One sample to run: `prompt` is plain text or a chat; `seed` makes its sampling repeatable."""

    index: int
    id: str
    prompt: Prompt
    seed: int = 0


@dataclass(frozen=True, slots=True)
class SampleError:
    """Why one sample has no answer."""

    type: str
    message: str

    @classmethod
    def of(cls, error: BaseException) -> SampleError:
        return cls(type(error).__name__, str(error)[:2000])


@dataclass(frozen=True, slots=True)
class Completion:
    """The answer to one request; `started_at` in Unix seconds, `seconds` it took with its batch."""

    index: int
    text: str
    finish_reason: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: SampleError | None = None
    started_at: float = 0.0
    seconds: float = 0.0

    @classmethod
    def failed(cls, index: int, error: SampleError, started_at: float = 0.0, seconds: float = 0.0) -> Completion:
        return cls(index, "", "error", error=error, started_at=started_at, seconds=seconds)


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a journal (design: 'The run folder')."""

    index: int
    id: str
    chunk: int
    generation: int
    completion: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    rank: int
    attempt: str
    seconds: float
    started_at: float
    scores: Mapping[str, float | None] = field(default_factory=dict)
    error: SampleError | None = None

    def line(self) -> bytes:
        """The record as JSON in ASCII, one `\\n` at its end: any text comes back exactly, lone surrogates too."""
        values = {name: getattr(self, name) for name in self.__slots__}
        values["error"] = {"type": self.error.type, "message": self.error.message} if self.error else None
        values["scores"] = {name: _finite(value) for name, value in self.scores.items()}
        return json.dumps(values, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> Record:
        """The record of a line without its newline; ValueError says what is wrong with it."""
        values = json.loads(line)
        if not isinstance(values, dict):
            raise ValueError("not an object")
        error = values.pop("error", None)
        try:
            record = cls(**values, error=SampleError(**error) if error else None)
        except TypeError as problem:
            raise ValueError(str(problem)) from None
        for name, kinds in _FIELDS.items():
            value: Any = getattr(record, name)
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise ValueError(f"{name} is {value!r}")
        return record


_FIELDS: dict[str, type | tuple[type, ...]] = {
    "index": int, "id": str, "chunk": int, "generation": int, "completion": str, "finish_reason": str,
    "prompt_tokens": int, "completion_tokens": int, "rank": int, "attempt": str, "scores": dict,
    "seconds": (int, float), "started_at": (int, float),
}  # fmt: skip


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
