"""generate: transformers' own `generate` over batches sorted by length."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import torch
import transformers

from hpcjobs.config import GenerationConfig
from hpcjobs.engines.base import BatchSize, Source, rows_at_once, take
from hpcjobs.engines.encoding import NO_NUMBERS, Answer, Encoded, TextCodec, completion_of, repeat_seed
from hpcjobs.engines.lengths import forget_lengths, takes_padding
from hpcjobs.engines.out_of_memory import free_gpu_memory, is_out_of_memory
from hpcjobs.engines.processors import processed, without_defaults
from hpcjobs.engines.sampling import Sampling, SeededSampler
from hpcjobs.engines.stop_strings import StopStrings
from hpcjobs.requests import Completion, SampleError

if TYPE_CHECKING:
    from transformers import LogitsProcessor, PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)
# Batches per window for sorting: enough to get similar lengths, few enough that a crash costs little.
_WINDOW_BATCHES = 4


@dataclass(frozen=True, slots=True)
class _Row:
    """One answer to generate: answer `number` to the request."""

    encoded: Encoded
    number: int


class GenerateEngine:
    """Runs length-sorted batches of at most `batch_size`, halved when memory runs out. A bad prompt fails alone.

    Rows are padded on the left; a model that padding would change gets batches of prompts of equal length.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        generation: GenerationConfig,
        batch_size: BatchSize,
    ) -> None:
        self._model, self._codec = model, TextCodec(model, tokenizer, generation)
        self.batch_size = rows_at_once(batch_size)
        self._window = self.batch_size * _WINDOW_BATCHES
        self._pads = self.batch_size == 1 or takes_padding(model)

    def stream(self, requests: Source) -> Iterator[Completion]:
        """Completions batch by batch; the requests of each window are sorted, longest first."""
        ended = False
        while not ended:
            window, ended = take(requests, self._window)
            encoded: list[Encoded] = []
            for request in window:
                outcome = self._codec.encode(request)
                if isinstance(outcome, Completion):
                    yield outcome
                else:
                    encoded.append(outcome)
            encoded.sort(key=lambda item: (self._how(item), -item.limit, -len(item.ids), item.request.index))
            yield from self._answer_all(encoded)

    def _answer_all(self, window: Sequence[Encoded]) -> Iterator[Completion]:
        """Yield each request's completion once all its answers are finished."""
        rows = [_Row(item, number) for item in window for number in range(item.request.repeats)]
        answers: dict[int, list[Answer | SampleError]] = {item.request.index: [] for item in window}
        started = {item.request.index: 0.0 for item in window}
        while rows:
            _, alike = next(groupby(rows[: self.batch_size], key=lambda row: self._how(row.encoded)))
            batch = list(alike)
            rows = rows[len(batch) :]
            began = time.time()
            for row, answer in zip(batch, self._run(batch), strict=True):
                request = row.encoded.request
                started[request.index] = started[request.index] or began
                answers[request.index].append(answer)
                if len(answers[request.index]) == request.repeats:
                    yield _completion(row.encoded, answers[request.index], started[request.index])

    def _how(self, item: Encoded) -> tuple[Sampling, tuple[str, ...], int]:
        """What the rows of a batch must share: the generation settings, and the length where none may be padded."""
        generation = item.generation
        return Sampling.of(generation), generation.stop, 0 if self._pads else len(item.ids)

    def _run(self, batch: Sequence[_Row]) -> list[Answer | SampleError]:
        """The batch's answers. A batch that fails is halved, down to the sample to blame."""
        try:
            return self._generate(batch)
        except Exception as error:
            problem = error
            if is_out_of_memory(error):
                self._make_room(batch)
            else:
                log.warning("a batch of %d failed: %s: %s", len(batch), type(error).__name__, error)
        if len(batch) == 1:
            return [SampleError.of(problem)]
        middle = len(batch) // 2
        return self._run(batch[:middle]) + self._run(batch[middle:])

    def _make_room(self, batch: Sequence[_Row]) -> None:
        self.batch_size = max(1, min(self.batch_size, len(batch) // 2))
        log.warning("out of memory with a batch of %d: going on with %d", len(batch), self.batch_size)
        free_gpu_memory()

    @torch.inference_mode()
    def _generate(self, batch: Sequence[_Row]) -> list[Answer | SampleError]:
        prompts = [row.encoded.ids for row in batch]
        length = max(map(len, prompts))
        tokenizer, ends = self._codec.tokenizer, batch[0].encoded.ends
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        ids = torch.tensor([[pad] * (length - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        device, rules, watch = self._model.device, _Rules(tokenizer, batch, length), _Numbers()
        own = [self._codec.processors(row.encoded) for row in batch]
        processors = [watch, *([_RowProcessors(own, prompts, length)] if any(own) else []), *_sampler(batch)]
        forget_lengths(self._model)
        with without_defaults(self._model):
            output = self._model.generate(
                input_ids=ids.to(device), attention_mask=mask.to(device), pad_token_id=pad,
                eos_token_id=sorted(ends) or None, max_new_tokens=max(row.encoded.limit for row in batch),
                do_sample=False, logits_processor=transformers.LogitsProcessorList(processors),
                stopping_criteria=transformers.StoppingCriteriaList([rules]),
            )  # fmt: skip
        made = [row[: rules.ends.get(n)] for n, row in enumerate(output[:, length:].tolist())]
        answers = [self._codec.answer(tokens, batch[0].encoded.generation) for tokens in made]
        whole = watch.whole_steps()
        return [answer if answer.tokens <= whole[n] else NO_NUMBERS for n, answer in enumerate(answers)]


class _RowProcessors:
    """A logits processor that gives each row to its own, without its padding, which would count as text there."""

    def __init__(self, own: Sequence[Sequence[LogitsProcessor]], prompts: Sequence[Sequence[int]], length: int) -> None:
        self._own, self._padding = own, [length - len(prompt) for prompt in prompts]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`scores` [rows, vocabulary] in any float type; float32 of the same shape."""
        rows = zip(self._own, input_ids.tolist(), self._padding, scores, strict=True)
        return torch.stack([processed(own, ids[padding:], logits) for own, ids, padding, logits in rows])


class _Numbers:
    """A logits processor that changes nothing and records which rows have logits that are not finite."""

    def __init__(self) -> None:
        self._steps: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self._steps.append(scores.amax(dim=-1).isfinite())
        return scores

    def whole_steps(self) -> list[int]:
        """Of each row, the steps before its first bad one; those after a row's end are nobody's."""
        good = torch.stack(self._steps).long()
        return good.cumprod(dim=0).sum(dim=0).tolist()


class _Rules:
    """A stopping criterion: each row ends at its own limit or at a stop string.

    `ends` has the number of new tokens of rows that ended this way.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, batch: Sequence[_Row], prompt_length: int) -> None:
        self._limits = [row.encoded.limit for row in batch]
        self._stops = StopStrings(tokenizer, batch[0].encoded.generation.stop)
        self._prompt_length = prompt_length
        self.ends: dict[int, int] = {}

    def __call__(self, input_ids: torch.Tensor, scores: object, **kwargs: object) -> torch.Tensor:
        """`input_ids` [rows, tokens]; True for each row that has ended."""
        rows = input_ids[:, self._prompt_length :].tolist()
        for number, made in enumerate(rows):
            if number not in self.ends and (len(made) >= self._limits[number] or self._stops.met(made)):
                self.ends[number] = len(made)
        return torch.tensor([number in self.ends for number in range(len(rows))], device=input_ids.device)


def _sampler(batch: Sequence[_Row]) -> list[SeededSampler]:
    """The sampler in the logits, with a seed per sample; decoding itself is greedy."""
    generation = batch[0].encoded.generation
    if generation.temperature == 0:
        return []
    seeds = [repeat_seed(row.encoded.request, row.number) for row in batch]
    return [SeededSampler(seeds, Sampling.of(generation))]


def _completion(encoded: Encoded, answers: Sequence[Answer | SampleError], started: float) -> Completion:
    good = [answer for answer in answers if isinstance(answer, Answer)]
    if len(good) == len(answers):
        return completion_of(encoded, good, started)
    error = next(answer for answer in answers if isinstance(answer, SampleError))
    return Completion.failed(encoded.request.index, error, started, time.time() - started)
