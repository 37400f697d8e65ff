"""A journal record: what one rank found for one sample."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpcjobs.requests import SampleError

_FIELDS: dict[str, type | tuple[type, ...]] = {
    "index": int, "id": str, "chunk": int, "generation": int, "completion": str, "finish_reason": str,
    "prompt_tokens": int, "completion_tokens": int, "rank": int, "attempt": str, "scores": dict,
    "seconds": (int, float), "started_at": (int, float),
}  # fmt: skip
_SOMETIMES: dict[str, type | tuple[type, ...]] = {
    "completions": (list, tuple), "choice_logprobs": (list, tuple), "choice_greedy": (list, tuple),
    "choice_tokens": (list, tuple), "statistics": dict,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line of a journal (design: 'The run folder').

    The last five stand in the line only where they hold something. `statistics` are what a metric sums over samples,
    beside the sample's own score: numbers, or a text.
    """

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
    completions: Sequence[str] = ()
    choice_logprobs: Sequence[float | None] = ()
    choice_greedy: Sequence[bool] = ()
    choice_tokens: Sequence[int] = ()
    statistics: Mapping[str, Sequence[float | None] | str] = field(default_factory=dict)

    def line(self) -> bytes:
        """The record as JSON in ASCII, one `\\n` at its end: any text comes back exactly, lone surrogates too."""
        values = {name: getattr(self, name) for name in self.__slots__}
        values["error"] = {"type": self.error.type, "message": self.error.message} if self.error else None
        values["scores"] = {name: _finite(value) for name, value in self.scores.items()}
        values["choice_logprobs"] = [_finite(value) for value in self.choice_logprobs]
        values["statistics"] = {
            name: value if isinstance(value, str) else [_finite(one) for one in value]
            for name, value in self.statistics.items()
        }
        for name in _SOMETIMES:
            if not values[name]:
                del values[name]
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
        for name, kind in _SOMETIMES.items():
            if not isinstance(getattr(record, name), kind):
                raise ValueError(f"{name} is {getattr(record, name)!r}")
        return record


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
