"""transformers: the continuous batching of transformers itself (ContinuousBatchingManager), for GPUs."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers

from hpcjobs.config import GenerationConfig
from hpcjobs.engines.base import Engine, Source
from hpcjobs.engines.encoding import NO_NUMBERS, Answer, Coder, Encoded, completion_of, context_length
from hpcjobs.engines.generate import GenerateEngine
from hpcjobs.engines.intake import Intake, TextThread
from hpcjobs.engines.loop import LoopEngine
from hpcjobs.engines.memory import expected_tokens
from hpcjobs.engines.stopping import StopStrings
from hpcjobs.engines.support import runs_packed
from hpcjobs.records import Completion, Request, SampleError

log = logging.getLogger(__name__)
# How long to wait for a token before looking whether the manager still lives, in seconds.
_WAIT = 1.0
_PAGE_TOKENS = 256


class ContinuousEngine:
    """Requests are added as they are claimed, results taken as they finish; greedy only.

    The manager has one random generator for all requests, so what is to be sampled is given to another engine, `loop`
    where it runs the model, whose samples depend on their seeds alone. It takes over as well when a request has
    brought the manager down: it finds out which one.
    """

    def __init__(self, model: Any, tokenizer: Any, generation: GenerationConfig, batch_size: int) -> None:
        self.model, self.coder, self.batch_size = model, Coder(model, tokenizer, generation), batch_size
        self._generation, self._tokenizer = generation, tokenizer
        self._positions = context_length(model, tokenizer)

    def stream(self, requests: Source) -> Iterator[Completion]:
        if self._generation.temperature > 0:
            log.info("temperature %g: samples have seeds of their own", self._generation.temperature)
            yield from self.other().stream(requests)
            return
        with TextThread(self.coder) as text:
            flow = _Flow(self, text, Intake(requests, text, max(2, self.batch_size // 8)))
            while not flow.ended:
                with self._manager() as manager:  # no other engine runs the model beside it
                    yield from flow.run(manager)
                yield from self.other().stream(flow.left() if flow.broken else flow.aside())

    def other(self) -> Engine:
        """What runs the requests that the manager cannot."""
        kind = LoopEngine if runs_packed(self.model) else GenerateEngine
        return kind(self.model, self._tokenizer, self._generation, self.batch_size)

    @contextlib.contextmanager
    def _manager(self) -> Iterator[Any]:
        """A manager at work; its thread ends with the block, whatever is left."""
        config = copy.deepcopy(self.model.generation_config)
        config.update(
            do_sample=False, num_beams=1, max_new_tokens=self._generation.max_new_tokens, temperature=None, top_p=None,
            top_k=None, num_return_sequences=1,
        )  # fmt: skip
        config.eos_token_id = sorted(self.coder.ends) or -1
        manager = self.model.init_continuous_batching(config, self._batching())
        manager.start()
        try:
            yield manager
        finally:
            manager.stop(block=True, hard_stop=True)
            manager.destroy()

    def _batching(self) -> Any:
        """On GPUs the manager takes what memory is free; elsewhere as many pages as the batch needs."""
        config = transformers.generation.ContinuousBatchingConfig(
            page_size=_PAGE_TOKENS, max_requests_per_batch=self.batch_size, return_logprobs=True,
            auto_switch_to_flash=self.model.dtype != torch.float32,
        )  # fmt: skip
        if self.model.device.type != "cuda":
            row = math.ceil(expected_tokens(self._generation.max_new_tokens, self._positions) / _PAGE_TOKENS)
            config.num_blocks, config.max_batch_tokens = self.batch_size * row + 1, 1024
        return config


@dataclass(eq=False, slots=True)
class _Open:
    """A request in hand: its answers that are there, and how many tokens of each were looked at for stop strings."""

    encoded: Encoded
    stops: StopStrings
    started: float
    answers: dict[int, Answer | SampleError] = field(default_factory=dict)
    seen: dict[int, int] = field(default_factory=dict)


class _Flow:
    """One stream through one manager."""

    def __init__(self, engine: ContinuousEngine, text: TextThread, intake: Intake) -> None:
        self._engine, self._text, self._intake = engine, text, intake
        self._manager: Any = None
        self._open: dict[int, _Open] = {}
        self._aside: list[Request] = []  # to be sampled, when the manager has nothing to do
        self.broken = False

    @property
    def ended(self) -> bool:
        return self._intake.ended and self._intake.empty and not self._open and not self._aside

    def run(self, manager: Any) -> Iterator[Completion]:
        """Until all is done, or only what another engine has to do: `aside`, or `left` where the manager broke down."""
        self._manager = manager
        while not self.ended:
            yield from self._admit()
            if self._aside and not self._open:
                return
            for result in self._results() if self._open else ():
                if done := self._take(result):
                    yield done
            if self.broken:
                return

    def aside(self) -> Iterator[Request | None]:
        """What is to be sampled."""
        aside, self._aside = self._aside, []
        if aside:
            log.info("%d requests with a temperature: samples have seeds of their own", len(aside))
        yield from aside

    def left(self) -> Iterator[Request | None]:
        """The requests in hand, then what the source still has."""
        yield from [opened.encoded.request for opened in self._open.values()]
        self._open.clear()
        yield from self.aside()
        yield from self._intake.rest()

    def _admit(self) -> Iterator[Completion]:
        rows = sum(opened.encoded.request.repeats - len(opened.answers) for opened in self._open.values())
        room = 0 if self._aside else max(0, self._engine.batch_size - rows)
        for got in self._intake.take(room, len(self._open)):
            if isinstance(got, Completion):
                yield got
            elif got.generation.temperature > 0:
                self._aside.append(got.request)
            else:
                self._add(got)

    def _add(self, encoded: Encoded) -> None:
        request, stop = encoded.request, encoded.generation.stop
        self._open[request.index] = _Open(encoded, StopStrings(self._engine.coder.tokenizer, stop), time.time())
        for number in range(request.repeats):
            self._manager.add_request(
                encoded.ids, f"{request.index}/{number}", max_new_tokens=encoded.limit, streaming=bool(stop),
                eos_token_id=sorted(self._engine.coder.ends) or -1,
            )  # fmt: skip

    def _results(self) -> list[Any]:
        """What has come, at least one unless the manager is late."""
        results = [self._manager.get_result(timeout=_WAIT)]
        while not self._manager.output_router.output_queue.empty():
            results.append(self._manager.get_result(timeout=_WAIT))
        if not self._manager.is_running() or self._manager.background_thread_status.fatal_error is not None:
            self.broken = True
            log.warning("continuous batching broke down: %s", self._manager.background_thread_status.fatal_error)
        return [result for result in results if result is not None]

    def _take(self, result: Any) -> Completion | None:
        """The completion of a request whose last answer this is."""
        index, number = map(int, result.request_id.split("/"))
        opened = self._open.get(index)
        if opened is None or number in opened.answers:
            return None  # it met a stop string before the manager knew
        answer = self._answer(result, opened, number)
        if answer is None or (self.broken and isinstance(answer, SampleError)):
            return None
        opened.answers[number] = answer
        if len(opened.answers) < opened.encoded.request.repeats:
            return None
        del self._open[index]
        return _completion(opened)

    def _answer(self, result: Any, opened: _Open, number: int) -> Answer | SampleError | None:
        """None while it is being made."""
        made = result.generated_tokens
        end = self._stopped(made, opened, number)
        if end is None and not result.is_finished():
            return None
        if result.error is not None:
            return SampleError("RuntimeError", str(result.error)[:2000])
        if not all(map(math.isfinite, result.logprobs[:end])):
            return NO_NUMBERS
        if end is not None and not result.is_finished():
            self._manager.cancel_request(result.request_id)
        return self._text.answer(made[:end], opened.encoded.generation).result()

    def _stopped(self, made: Sequence[int], opened: _Open, number: int) -> int | None:
        """With how many tokens a stop string was met."""
        if not opened.encoded.generation.stop:
            return None
        first, opened.seen[number] = opened.seen.get(number, 0), len(made)
        with self._text.lock:
            return next((end for end in range(first + 1, len(made) + 1) if opened.stops.met(made[:end])), None)


def _completion(opened: _Open) -> Completion:
    answers = [opened.answers[number] for number in range(opened.encoded.request.repeats)]
    good = [answer for answer in answers if isinstance(answer, Answer)]
    if len(good) == len(answers):
        return completion_of(opened.encoded, good, opened.started)
    error = next(answer for answer in answers if isinstance(answer, SampleError))
    index = opened.encoded.request.index
    return Completion.failed(index, error, opened.started, time.time() - opened.started)
