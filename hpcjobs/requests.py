"""The nouns that stages hand to each other: a request, its completion, and the journal's record of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from hpcjobs.config import GenerationConfig

Chat = list[dict[str, str]]
Prompt = str | Chat
# What is right: texts, or for multiple choice the numbers of right options.
Target = str | int | list[str] | list[int] | None
TaskType = Literal["generate", "choice", "perplexity"]


@dataclass(frozen=True, slots=True)
class Pair:
    """A continuation whose log-likelihood is asked for, and what stands before it."""

    context: Prompt
    continuation: str


@dataclass(frozen=True, slots=True)
class Request:
    """One sample to run: `prompt` is plain text or a chat; `seed` makes its sampling repeatable.

    generate: `prompt` is answered, `repeats` times, with the engine's generation settings or its own `generation`.
    choice: each of `pairs` is scored; `options` are their texts as people read them. perplexity: `prompt` is a text
    that is scored as a whole.
    """

    index: int
    id: str
    prompt: Prompt
    seed: int = 0
    task: TaskType = "generate"
    options: tuple[str, ...] = ()
    pairs: tuple[Pair, ...] = ()
    repeats: int = 1
    generation: GenerationConfig | None = None


@dataclass(frozen=True, slots=True)
class SampleError:
    """Why one sample has no answer."""

    type: str
    message: str

    @classmethod
    def of(cls, error: BaseException) -> SampleError:
        return cls(type(error).__name__, str(error)[:2000])


@dataclass(frozen=True, slots=True)
class Likelihood:
    """What scoring came to, one entry an option: the natural log of its probability (the sum over its `tokens`
    tokens), and whether greedy decoding would have given it. Of a perplexity sample there is one entry: its text.
    """

    logprobs: tuple[float, ...]
    greedy: tuple[bool, ...]
    tokens: tuple[int, ...]
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """The answer to one request; `started_at` in Unix seconds, `seconds` it took with its batch.

    `text` is the answer; of several (`texts`) the first; of multiple choice the likeliest option.
    """

    index: int
    text: str
    finish_reason: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: SampleError | None = None
    started_at: float = 0.0
    seconds: float = 0.0
    texts: tuple[str, ...] = ()
    likelihood: Likelihood | None = None

    @classmethod
    def failed(cls, index: int, error: SampleError, started_at: float = 0.0, seconds: float = 0.0) -> Completion:
        return cls(index, "", "error", error=error, started_at=started_at, seconds=seconds)


@dataclass(frozen=True, slots=True)
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


_FIELDS: dict[str, type | tuple[type, ...]] = {
    "index": int, "id": str, "chunk": int, "generation": int, "completion": str, "finish_reason": str,
    "prompt_tokens": int, "completion_tokens": int, "rank": int, "attempt": str, "scores": dict,
    "seconds": (int, float), "started_at": (int, float),
}  # fmt: skip
_SOMETIMES: dict[str, type | tuple[type, ...]] = {
    "completions": (list, tuple), "choice_logprobs": (list, tuple), "choice_greedy": (list, tuple),
    "choice_tokens": (list, tuple), "statistics": dict,
}  # fmt: skip


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
