"""Prompts to tokens, and tokens to answers: the same for every engine that generates."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hpcjobs.config import GenerationConfig
from hpcjobs.engines.stopping import cut_at_stop
from hpcjobs.requests import Completion, Request, SampleError


@dataclass(frozen=True, slots=True)
class Encoded:
    """A prompt's token ids, how it is answered, and how many new tokens it may get: the model's positions end."""

    request: Request
    ids: list[int]
    limit: int
    generation: GenerationConfig


@dataclass(frozen=True, slots=True)
class Answer:
    """One finished text: without what ended it, which counts as a token where it is one."""

    text: str
    reason: str
    tokens: int


NO_NUMBERS = SampleError("FloatingPointError", "the model's logits for this sample are no numbers")


class Coder:
    """A model's tokenizer with what ends an answer; `generation` is for requests that bring none of their own."""

    def __init__(self, model: Any, tokenizer: Any, generation: GenerationConfig) -> None:
        self.tokenizer, self._generation, self._model = tokenizer, generation, model
        self.ends = frozenset(_end_tokens(model, tokenizer))
        self._longest = context_length(model, tokenizer)

    def encode(self, request: Request) -> Encoded | Completion:
        """Token ids, or why there are none; nothing that a prompt does may end the rank."""
        try:
            ids = encode_prompt(self.tokenizer, request)
            room = self._longest - len(ids)
            if room < 1:
                raise ValueError(f"prompt of {len(ids)} tokens leaves no room in the model's {self._longest} positions")
            if not ids:
                raise ValueError("prompt has no tokens")
        except Exception as error:
            return Completion.failed(request.index, SampleError.of(error), time.time())
        generation = request.generation or self._generation
        return Encoded(request, ids, min(room, generation.max_new_tokens), generation)

    def answer(self, made: Sequence[int], generation: GenerationConfig) -> Answer:
        """The answer that these new tokens are, up to the first that ends it."""
        end = next((place for place, token in enumerate(made) if token in self.ends), None)
        tokens = list(made if end is None else made[:end])
        text, stopped = cut_at_stop(self.tokenizer.decode(tokens, skip_special_tokens=True), generation.stop)
        reason = "stop" if end is not None or stopped else "length"
        return Answer(text, reason, len(tokens) + (end is not None))

    def processors(self, prompt_length: int) -> Sequence[Any]:
        """What `generate` does to the logits of such a prompt by the model's own generation config."""
        config = copy.deepcopy(self._model.generation_config)
        config.update(do_sample=False, num_beams=1)
        self._model._prepare_special_tokens(config, device=self._model.device)
        return list(self._model._get_logits_processor(config, prompt_length, device=self._model.device))


def repeat_seed(request: Request, number: int) -> int:
    """The seed of a request's answer `number`: it depends on the sample alone."""
    return request.seed + number


def completion_of(encoded: Encoded, answers: Sequence[Answer], started: float) -> Completion:
    """The completion of all answers to one request; the tokens are those of all, the reason that of the first."""
    first, several = answers[0], len(answers) > 1
    return Completion(
        encoded.request.index, first.text, first.reason, len(encoded.ids), sum(answer.tokens for answer in answers),
        None, started, time.time() - started, tuple(answer.text for answer in answers) if several else (),
    )  # fmt: skip


def encode_prompt(tokenizer: Any, request: Request) -> list[int]:
    """Token ids of a prompt; a chat goes through the tokenizer's own template, which brings its special tokens."""
    if isinstance(request.prompt, str):
        ids: list[int] = tokenizer(request.prompt).input_ids
        return ids
    text = tokenizer.apply_chat_template(request.prompt, add_generation_prompt=True, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def context_length(model: Any, tokenizer: Any) -> int:
    """Positions that the model has; some tokenizers say 1e30 for 'not known'."""
    positions = getattr(model.config, "max_position_embeddings", None) or getattr(model.config, "n_positions", None)
    return int(positions) if positions else min(int(tokenizer.model_max_length), 1 << 20)


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end an answer: the generation config's, else the tokenizer's."""
    ends = model.generation_config.eos_token_id
    ends = tokenizer.eos_token_id if ends is None else ends
    return [] if ends is None else list(ends) if isinstance(ends, list | tuple) else [ends]
