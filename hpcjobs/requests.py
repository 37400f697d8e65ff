"""The nouns that stages hand to each other: a request, its completion, and the journal's record of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Chat = list[dict[str, str]]
Prompt = str | Chat
# What is right: texts, or for multiple choice the numbers of right options.
Target = str | int | list[str] | list[int] | None
# A row of a data set: its columns, of any type that the file has.
Row = Mapping[str, object]
TaskType = Literal["generate", "choice", "perplexity"]


class GenerationConfig(BaseModel):
    """How an answer is made, the config's `task.generation`: at most `max_new_tokens`; temperature 0 is greedy."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    max_new_tokens: Annotated[int, Field(ge=1)] = 256
    temperature: Annotated[float, Field(ge=0)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()


@dataclass(frozen=True, slots=True)
class Pair:
    """A continuation whose log-likelihood is asked for, and what stands before it."""

    context: Prompt
    continuation: str


@dataclass(frozen=True, slots=True, kw_only=True)
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


@dataclass(frozen=True, slots=True, kw_only=True)
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
        return cls(index=index, text="", finish_reason="error", error=error, started_at=started_at, seconds=seconds)
