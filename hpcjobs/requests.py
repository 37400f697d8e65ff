"""Requests and completions: what an engine takes and gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, SupportsIndex, overload

from pydantic import BaseModel, ConfigDict, Field

from hpcjobs.masking import masked

# `role`, `content` (a text, or None), and what else a chat template knows, such as `tool_calls` or `name`.
Turn = dict[str, Any]
Chat = list[Turn]
Prompt = str | Chat


class ToolChat(list[Turn]):
    """A chat with `values` for its template beside the turns: `tools`, `documents`. Its slices have them too."""

    def __init__(self, turns: Iterable[Turn], values: Mapping[str, object]) -> None:
        super().__init__(turns)
        self.values = values

    @overload
    def __getitem__(self, place: SupportsIndex) -> Turn: ...
    @overload
    def __getitem__(self, place: slice) -> ToolChat: ...
    def __getitem__(self, place: SupportsIndex | slice) -> Turn | ToolChat:
        found = super().__getitem__(place)
        return ToolChat(found, self.values) if isinstance(found, list) else found


def template_values(chat: Sequence[Turn]) -> Mapping[str, object]:
    """What a chat gives its template beside the turns."""
    return chat.values if isinstance(chat, ToolChat) else {}


def turns_like(chat: Sequence[Turn], turns: Iterable[Turn]) -> Chat:
    """Other turns with the template values of `chat`."""
    return ToolChat(turns, chat.values) if isinstance(chat, ToolChat) else list(turns)


# The correct answers: texts, or option numbers for multiple choice.
Target = str | int | list[str] | list[int] | None
# A row of a data set: its columns, of any type that the file has.
Row = Mapping[str, object]
TaskType = Literal["generate", "choice", "perplexity"]
Truncate = Literal["left", "error"]


class GenerationConfig(BaseModel):
    """Generation settings, the config's `task.generation`. Temperature 0 is greedy decoding.

    `top_k`, `top_p` and `min_p` are for other temperatures. `repetition_penalty` is for all; None is the model's own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    max_new_tokens: Annotated[int, Field(ge=1)] = 256
    temperature: Annotated[float, Field(ge=0)] = 0.0
    top_p: Annotated[float, Field(ge=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()


@dataclass(frozen=True, slots=True)
class Pair:
    """A continuation to score, and the context before it."""

    context: Prompt
    continuation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One sample to run. `prompt` is plain text or a chat; `seed` makes sampling reproducible.

    generate: `prompt` is completed `repeats` times, with the engine's generation settings unless the request has its
    own `generation`. choice: each of `pairs` is scored; `options` are the options' texts for people. perplexity: the
    whole `prompt` is scored.

    `truncate` says what becomes of a length that the model cannot take. left: the beginning of a prompt is cut off, and
    a text without tokens has log-likelihood 0, as in lm-evaluation-harness; error: neither. None is error, but left for
    the prompts of choice.
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
    truncate: Truncate | None = None


@dataclass(frozen=True, slots=True)
class SampleError:
    """Why a sample has no completion, or no score."""

    type: str
    message: str

    @classmethod
    def of(cls, error: BaseException) -> SampleError:
        """The type and message (at most 2000 characters, without secrets) of an exception."""
        return cls(type(error).__name__, masked(str(error))[:2000])


@dataclass(frozen=True, slots=True)
class MetricError:
    """Why a sample that has a completion has no score of a metric."""

    metric: str
    type: str
    message: str


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Log-likelihoods, one entry per option; a perplexity sample has one entry, its text.

    `logprobs` are natural logs, summed over the `tokens` tokens of the option; `greedy` says whether greedy decoding
    would produce it.
    """

    logprobs: tuple[float, ...]
    greedy: tuple[bool, ...]
    tokens: tuple[int, ...]
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """The completion of one request.

    `text` is the completion, the first of `texts` if there are several, and the most likely option for choice.
    `started_at` is in Unix seconds; `seconds` is how long the sample took, together with its batch.
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
        """A completion that has an error instead of a text."""
        return cls(index=index, text="", finish_reason="error", error=error, started_at=started_at, seconds=seconds)
