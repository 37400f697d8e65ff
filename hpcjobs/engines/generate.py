"""generate: transformers' own `generate` over batches sorted by length."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from hpcjobs.config import GenerationConfig
from hpcjobs.engines.base import AUTO_BATCH, BatchSize, Source, take
from hpcjobs.engines.sampling import SeededSampler
from hpcjobs.engines.stopping import StopStrings, cut_at_stop
from hpcjobs.records import Completion, Request, SampleError

log = logging.getLogger(__name__)
# Batches looked ahead for sorting: enough to even lengths out, few enough that a crash costs little.
_WINDOW_BATCHES = 4


@dataclass(frozen=True)
class _Encoded:
    """A prompt's token ids, and how many new tokens the model's positions leave room for."""

    request: Request
    ids: list[int]
    limit: int


class GenerateEngine:
    """Length-sorted batches of at most `batch_size`, halved when memory runs out; one bad prompt fails alone."""

    def __init__(self, model: Any, tokenizer: Any, generation: GenerationConfig, batch_size: BatchSize) -> None:
        self._model, self._tokenizer, self._generation = model, tokenizer, generation
        self.batch_size = AUTO_BATCH if batch_size == "auto" else batch_size
        self._window = self.batch_size * _WINDOW_BATCHES
        self._ends = _end_tokens(model, tokenizer)
        self._longest = context_length(model, tokenizer)

    def stream(self, requests: Source) -> Iterator[Completion]:
        """Completions of the requests, batch by batch, each window of them longest first."""
        ended = False
        while not ended:
            window, ended = take(requests, self._window)
            encoded: list[_Encoded] = []
            for request in window:
                outcome = self._encode(request)
                if isinstance(outcome, Completion):
                    yield outcome
                else:
                    encoded.append(outcome)
            encoded.sort(key=lambda item: (-item.limit, -len(item.ids), item.request.index))
            while encoded:
                batch = [item for item in encoded[: self.batch_size] if item.limit == encoded[0].limit]
                encoded = encoded[len(batch) :]
                yield from self._run(batch)

    def _encode(self, request: Request) -> _Encoded | Completion:
        """Token ids, or why there are none; nothing that a prompt does may end the rank."""
        try:
            ids = encode_prompt(self._tokenizer, request)
            room = self._longest - len(ids)
            if room < 1:
                raise ValueError(f"prompt of {len(ids)} tokens leaves no room in the model's {self._longest} positions")
            if not ids:
                raise ValueError("prompt has no tokens")
        except Exception as error:
            return Completion.failed(request.index, SampleError.of(error), time.time())
        return _Encoded(request, ids, min(room, self._generation.max_new_tokens))

    def _run(self, batch: Sequence[_Encoded]) -> list[Completion]:
        """The batch's completions; where it fails, its halves', down to the sample that is to blame."""
        started = time.time()
        try:
            return self._generate(batch, started)
        except torch.OutOfMemoryError as error:
            problem: Exception = error
            self._make_room(batch)
        except Exception as error:
            problem = error
            log.warning("a batch of %d failed: %s: %s", len(batch), type(error).__name__, error)
        if len(batch) == 1:
            failure = SampleError.of(problem)
            return [Completion.failed(batch[0].request.index, failure, started, time.time() - started)]
        middle = len(batch) // 2
        return self._run(batch[:middle]) + self._run(batch[middle:])

    def _make_room(self, batch: Sequence[_Encoded]) -> None:
        self.batch_size = max(1, min(self.batch_size, len(batch) // 2))
        log.warning("out of memory with a batch of %d: going on with %d", len(batch), self.batch_size)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _generate(self, batch: Sequence[_Encoded], started: float) -> list[Completion]:
        length = max(len(item.ids) for item in batch)
        pad = self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else 0
        ids = torch.tensor([[pad] * (length - len(item.ids)) + item.ids for item in batch])
        mask = torch.tensor([[0] * (length - len(item.ids)) + [1] * len(item.ids) for item in batch])
        device = self._model.device
        output = self._model.generate(
            input_ids=ids.to(device), attention_mask=mask.to(device), pad_token_id=pad, eos_token_id=self._ends or None,
            max_new_tokens=batch[0].limit, **self._how([item.request.seed for item in batch], length),
        )  # fmt: skip
        took = time.time() - started
        rows = output[:, length:].tolist()
        return [self._completion(item, row, started, took) for item, row in zip(batch, rows, strict=True)]

    def _how(self, seeds: Sequence[int], length: int) -> dict[str, Any]:
        """Arguments for `generate`: always greedy; sampling is in the logits, by sample."""
        how: dict[str, Any] = {
            "do_sample": False, "num_beams": 1,
            "temperature": None, "top_p": None, "top_k": None,
        }  # fmt: skip
        if self._generation.temperature > 0:
            sampler: Any = SeededSampler(seeds, self._generation.temperature, self._generation.top_p)
            how["logits_processor"] = transformers.LogitsProcessorList([sampler])
        if self._generation.stop:
            stopping: Any = StopStrings(self._tokenizer, self._generation.stop, length)
            how["stopping_criteria"] = transformers.StoppingCriteriaList([stopping])
        return how

    def _completion(self, item: _Encoded, row: list[int], started: float, took: float) -> Completion:
        end = next((place for place, token in enumerate(row) if token in self._ends), None)
        made = row if end is None else row[:end]
        if end is None and self._tokenizer.pad_token_id not in self._ends:
            while made and made[-1] == self._tokenizer.pad_token_id:  # the row met a stop string before its batch
                made = made[:-1]
        text, stopped = cut_at_stop(self._tokenizer.decode(made, skip_special_tokens=True), self._generation.stop)
        reason = "stop" if end is not None or stopped else "length"
        tokens = len(made) + (end is not None)
        return Completion(item.request.index, text, reason, len(item.ids), tokens, None, started, took)


def encode_prompt(tokenizer: Any, request: Request) -> list[int]:
    """Token ids of a prompt; a chat goes through the tokenizer's own template, which brings its special tokens."""
    if isinstance(request.prompt, str):
        ids: list[int] = tokenizer(request.prompt).input_ids
        return ids
    text = tokenizer.apply_chat_template(request.prompt, add_generation_prompt=True, tokenize=False)
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end an answer: the generation config's, else the tokenizer's."""
    ends = model.generation_config.eos_token_id
    ends = tokenizer.eos_token_id if ends is None else ends
    return [] if ends is None else list(ends) if isinstance(ends, list | tuple) else [ends]


def context_length(model: Any, tokenizer: Any) -> int:
    """Positions that the model has; some tokenizers say 1e30 for 'not known'."""
    positions = getattr(model.config, "max_position_embeddings", None) or getattr(model.config, "n_positions", None)
    return int(positions) if positions else min(int(tokenizer.model_max_length), 1 << 20)
