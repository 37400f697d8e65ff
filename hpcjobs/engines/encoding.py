"""Prompts to tokens and tokens to answers, for every engine that generates."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpcjobs.config import GenerationConfig
from hpcjobs.engines.chat_template import chat_text
from hpcjobs.engines.context_length import context_length, window_length
from hpcjobs.engines.end_tokens import added_tokens, end_tokens
from hpcjobs.engines.generation_keys import stop_strings
from hpcjobs.engines.lengths import dynamic_factor
from hpcjobs.engines.stop_strings import stopped_text
from hpcjobs.engines.vocabulary import check_tokens, embedding_rows
from hpcjobs.requests import Completion, Prompt, Request, SampleError

if TYPE_CHECKING:
    from transformers import LogitsProcessor, PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Encoded:
    """The token ids of a prompt, with its generation settings. `limit` is the most new tokens that fit the model's
    context; `ends` are the end tokens.
    """

    request: Request
    ids: list[int]
    limit: int
    generation: GenerationConfig
    ends: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished text, without its end token or stop string. `tokens` counts the end token."""

    text: str
    reason: str
    tokens: int


NO_NUMBERS = SampleError("FloatingPointError", "the model's logits for this sample are no numbers")


class TextCodec:
    """A model's tokenizer and end tokens. `generation` is for requests without their own settings."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig
    ) -> None:
        self.tokenizer, self._generation, self._model = tokenizer, generation, model
        self._stops = stop_strings(vars(model.generation_config))
        self._ends = frozenset(end_tokens(model, tokenizer))
        self._added = added_tokens(tokenizer)
        self._longest = int(context_length(model, tokenizer) * dynamic_factor(model))
        self._window = window_length(model, tokenizer)
        self._known = embedding_rows(model)

    def ends(self, generation: GenerationConfig) -> frozenset[int]:
        """The end tokens of an answer: the model's, and each stop string that is a single special token."""
        return self._ends | {self._added[stop] for stop in generation.stop if stop in self._added}

    def encode(self, request: Request) -> Encoded | Completion:
        """The encoded prompt, or a failed Completion: no prompt may end the rank."""
        generation = self.with_stops(request.generation or self._generation)
        try:
            ids = prompt_ids(self.tokenizer, request.prompt)
            if request.truncate == "left":
                ids = self._cut(ids, generation.max_new_tokens)
            room = self._longest - len(ids)
            if room < 1:
                raise ValueError(f"prompt of {len(ids)} tokens leaves no room in the model's {self._longest} positions")
            if not ids:
                raise ValueError("prompt has no tokens")
            check_tokens(ids, self._known, self.tokenizer)
        except Exception as error:
            return Completion.failed(request.index, SampleError.of(error), time.time())
        return Encoded(request, ids, min(room, generation.max_new_tokens), generation, self.ends(generation))

    def _cut(self, ids: list[int], new: int) -> list[int]:
        """The end of a prompt, with room for `new` tokens; special tokens are cut off like others.

        The rule is lm-evaluation-harness's (0.4.13, `HFLM.generate_until`).
        """
        if new >= self._window:
            raise ValueError(f"{new} new tokens leave no room for a prompt in the model's {self._window} positions")
        return ids[new - self._window :]

    def answer(self, made: Sequence[int], generation: GenerationConfig) -> Answer:
        """The answer in the new tokens `made`, up to the first end token or stop string."""
        ends = self.ends(generation)
        end = next((place for place, token in enumerate(made) if token in ends), None)
        tokens = list(made if end is None else made[:end])
        text, stopped = stopped_text(self.tokenizer, tokens, generation.stop)
        reason = "stop" if end is not None or stopped else "length"
        return Answer(text, reason, len(tokens) + (end is not None))

    def with_stops(self, generation: GenerationConfig) -> GenerationConfig:
        """The settings with the model's own stop strings as well."""
        new = [stop for stop in self._stops if stop not in generation.stop]
        return generation.model_copy(update={"stop": (*generation.stop, *new)}) if new else generation

    def processors(self, encoded: Encoded) -> Sequence[LogitsProcessor]:
        """The logits processors that `generate` would use for this prompt alone, by the model's generation config and
        the settings of the request. Most have none.
        """
        from hpcjobs.engines.processors import row_processors

        penalty = encoded.generation.repetition_penalty
        return row_processors(self._model, encoded.ids, encoded.limit, sorted(self._ends), penalty)

    @property
    def processes(self) -> bool:
        """Whether requests without their own settings have processors."""
        from hpcjobs.engines.processors import row_processors

        return bool(row_processors(self._model, [0], 1, sorted(self._ends), self._generation.repetition_penalty))


def repeat_seed(request: Request, number: int) -> int:
    """The seed of answer `number` to a request; it depends on the sample only."""
    return request.seed + number


def completion_of(encoded: Encoded, answers: Sequence[Answer], started: float) -> Completion:
    """The completion of all answers to one request. Tokens are those of all answers, the finish reason that of the
    first.
    """
    first, several = answers[0], len(answers) > 1
    return Completion(
        index=encoded.request.index,
        text=first.text,
        finish_reason=first.reason,
        prompt_tokens=len(encoded.ids),
        completion_tokens=sum(answer.tokens for answer in answers),
        error=None,
        started_at=started,
        seconds=time.time() - started,
        texts=tuple(answer.text for answer in answers) if several else (),
    )


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """The token ids of a prompt, the same for generation, scoring and training.

    A chat goes through the tokenizer's chat template, which adds the special tokens. A text gets those that the
    tokenizer adds, unless it begins with the first of them: then a template has rendered it, and adding them would
    repeat the first token (lm-evaluation-harness 0.4.13, `HFLM.tok_batch_encode`).
    """
    if isinstance(prompt, str):
        return text_ids(tokenizer, prompt)
    text = chat_text(tokenizer, prompt, ask=True)
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The token ids of a text with the tokenizer's special tokens, but never the first one twice."""
    bare = bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)
    ids: list[int] = tokenizer(text, add_special_tokens=not bare).input_ids
    return ids
