"""transformers: the continuous batching of transformers (ContinuousBatchingManager), for GPUs."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
import transformers

from hpcjobs.config import GenerationConfig
from hpcjobs.engines.base import Engine, Source
from hpcjobs.engines.batch_rows import expected_tokens
from hpcjobs.engines.context_length import context_length
from hpcjobs.engines.continuous_trial import answers_of, follows, trial_prompts
from hpcjobs.engines.encoding import NO_NUMBERS, Answer, Encoded, TextCodec, completion_of
from hpcjobs.engines.generate import GenerateEngine
from hpcjobs.engines.intake import Intake, TextThread
from hpcjobs.engines.loop.engine import LoopEngine
from hpcjobs.engines.stop_strings import StopStrings
from hpcjobs.engines.support import flash_attention, runs_loop
from hpcjobs.requests import Completion, Request, SampleError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from transformers.generation import ContinuousBatchingConfig, ContinuousBatchingManager
    from transformers.generation.continuous_batching import GenerationOutput

log = logging.getLogger(__name__)
# How long to wait for a token before checking that the manager is alive (seconds).
_WAIT = 1.0
_PAGE_TOKENS = 256
# Tokens of a pass, where attention needs a mask.
_PASS_TOKENS = 1024
# After this many crashes the other engine takes over.
_BREAKDOWNS = 3
# Whether a model's manager gave the right tokens.
_tried: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()


class ContinuousEngine:
    """Adds requests to transformers' manager as they are claimed, and takes results as they finish; greedy only.

    The manager has one random generator for all requests, so sampling is left to another engine (`loop`, if it runs the
    model), whose samples depend on their own seeds. That engine also takes over if a request crashes the manager, or if
    logits are not finite, which affects other rows of the batch there: it finds the request to blame.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig, batch_size: int
    ) -> None:
        self.model, self.codec, self.batch_size = model, TextCodec(model, tokenizer, generation), batch_size
        self._generation, self._tokenizer = generation, tokenizer
        self._positions = context_length(model, tokenizer)

    def stream(self, requests: Source) -> Iterator[Completion]:
        """Completions as they finish."""
        if self._generation.temperature > 0 or self.codec.processes:
            why = "its generation config, or the settings, change logits, which the manager does for a batch, not a row"
            heat = f"temperature {self._generation.temperature:g}: samples have seeds of their own"
            log.info("%s", heat if self._generation.temperature > 0 else why)
            yield from self.other().stream(requests)
            return
        if self.model.device.type == "cuda" and not self.trusted():
            yield from self.other().stream(requests)
            return
        with TextThread(self.codec) as text:
            flow = _Flow(self, text, Intake(requests, text, max(2, self.batch_size // 8)))
            while not flow.ended and flow.breakdowns < _BREAKDOWNS:
                with self._manager() as manager:  # no other engine runs the model beside it
                    yield from flow.run(manager)
                yield from self.other().stream(flow.aside())
            yield from self.other().stream(flow.left())

    def trusted(self) -> bool:
        """Whether the manager gives the model's own tokens on this device; tried once for a model."""
        if self.model not in _tried:
            prompts = trial_prompts(self.model, self._positions)
            with self._manager() as manager:
                made = answers_of(manager, prompts) if manager else {}
            _tried[self.model] = follows(self.model, prompts, made)
            if not _tried[self.model]:
                log.warning("%s is run without continuous batching, which is not right here", type(self.model).__name__)
        return _tried[self.model]

    def other(self) -> Engine:
        """The engine for requests that the manager cannot run."""
        kind = LoopEngine if runs_loop(self.model) else GenerateEngine
        return kind(self.model, self._tokenizer, self._generation, self.batch_size)

    @contextlib.contextmanager
    def _manager(self) -> Iterator[ContinuousBatchingManager | None]:
        """A running manager, None if there cannot be one. Its thread ends with the block."""
        config = transformers.GenerationConfig(
            do_sample=False, num_beams=1, max_new_tokens=self._generation.max_new_tokens, num_return_sequences=1,
            eos_token_id=sorted(self.codec.ends(self._generation)) or -1,
            pad_token_id=self.model.generation_config.pad_token_id,
        )  # fmt: skip
        try:
            manager = self.model.init_continuous_batching(config, self._batching())
            manager.start()
        except Exception as error:  # such as an attention that the model was loaded with
            log.warning("no continuous batching of %s: %s", type(self.model).__name__, error)
            yield None
            return
        try:
            yield manager
        finally:
            manager.stop(block=True, hard_stop=True)
            manager.destroy()

    def _batching(self) -> ContinuousBatchingConfig:
        """The batching config: of free memory with flash attention, else as many pages as the batch needs.

        Attention by mask gives the manager one mask of all tokens of a pass by all cached ones. Sized by a GPU's free
        memory it has more than 2**31 numbers, beyond which the kernels' places wrap around: other tokens, no error.
        """
        config = transformers.generation.ContinuousBatchingConfig(
            page_size=_PAGE_TOKENS, max_requests_per_batch=self.batch_size, return_logprobs=True,
            auto_switch_to_flash=self.model.dtype != torch.float32,
        )  # fmt: skip
        if not (self.model.device.type == "cuda" and flash_attention(self.model)):
            row = math.ceil(expected_tokens(self._generation.max_new_tokens, self._positions) / _PAGE_TOKENS)
            most = (2**31 // _PASS_TOKENS - _PASS_TOKENS) // _PAGE_TOKENS - 2
            config.num_blocks, config.max_batch_tokens = min(self.batch_size * row + 1, most), _PASS_TOKENS
        return config


@dataclass(eq=False, slots=True)
class _Open:
    """A running request: its finished answers, and how many tokens of each were checked for stop strings."""

    encoded: Encoded
    stops: StopStrings
    started: float
    answers: dict[int, Answer] = field(default_factory=dict)
    checked: dict[int, int] = field(default_factory=dict)


class _Flow:
    """One stream through one manager."""

    def __init__(self, engine: ContinuousEngine, text: TextThread, intake: Intake) -> None:
        self._engine, self._text, self._intake = engine, text, intake
        self._manager: ContinuousBatchingManager  # of `run`
        self._open: dict[int, _Open] = {}
        self._aside: list[Request] = []  # for another engine, when the manager has nothing to do
        self.breakdowns = 0

    @property
    def ended(self) -> bool:
        return self._intake.ended and self._intake.empty and not self._open and not self._aside

    def run(self, manager: ContinuousBatchingManager | None) -> Iterator[Completion]:
        """Until all is done, or only what another engine has to do: `aside`."""
        if manager is None:
            self.breakdowns = _BREAKDOWNS
            return
        self._manager = manager
        while not self.ended:
            yield from self._admit()
            if self._aside and not self._open:
                return
            for result in self._results() if self._open else ():
                if done := self._take(result):
                    yield done
            if not manager.is_running() or manager.background_thread_status.fatal_error is not None:
                log.warning("continuous batching broke down: %s", manager.background_thread_status.fatal_error)
                self.breakdowns += 1
                self._put_aside(list(self._open))
                return

    def _put_aside(self, indexes: Sequence[int]) -> None:
        self._aside += [self._open.pop(index).encoded.request for index in indexes]

    def aside(self) -> Iterator[Request | None]:
        """What the manager cannot do."""
        aside, self._aside = self._aside, []
        if aside:
            log.info("%d requests go to another engine", len(aside))
        yield from aside

    def left(self) -> Iterator[Request | None]:
        """What is to be done yet when there is no manager any more."""
        yield from self.aside()
        yield from self._intake.rest()

    def _admit(self) -> Iterator[Completion]:
        rows = sum(opened.encoded.request.repeats - len(opened.answers) for opened in self._open.values())
        room = 0 if self._aside else max(0, self._engine.batch_size - rows)
        for got in self._intake.take(room, len(self._open)):
            if isinstance(got, Completion):
                yield got
            elif got.generation.temperature > 0 or self._engine.codec.processors(got):
                self._aside.append(got.request)
            else:
                self._add(got)

    def _add(self, encoded: Encoded) -> None:
        request, stop = encoded.request, encoded.generation.stop
        self._open[request.index] = _Open(encoded, StopStrings(self._engine.codec.tokenizer, stop), time.time())
        for number in range(request.repeats):
            self._manager.add_request(
                encoded.ids, f"{request.index}/{number}", max_new_tokens=encoded.limit, streaming=bool(stop),
                eos_token_id=sorted(encoded.ends) or -1,
            )  # fmt: skip

    def _results(self) -> list[GenerationOutput]:
        """The results that have arrived: at least one, unless none comes in time."""
        results = [self._manager.get_result(timeout=_WAIT)]
        while not self._manager.output_router.output_queue.empty():
            results.append(self._manager.get_result(timeout=_WAIT))
        return [result for result in results if result is not None]

    def _take(self, result: GenerationOutput) -> Completion | None:
        """The completion of a request, if this was its last answer."""
        index, number = map(int, result.request_id.split("/"))
        opened = self._open.get(index)
        if opened is None or number in opened.answers:
            return None  # it met a stop string before the manager knew
        answer = self._answer(result, opened, number)
        if answer is NO_NUMBERS:  # they may have come from any row of its batch
            log.warning("logits that are no numbers: %d requests are run once more", len(self._open))
            self._put_aside(list(self._open))
        elif isinstance(answer, SampleError):  # its own, or that of the whole batch
            self._put_aside([index])
        elif answer is not None:
            opened.answers[number] = answer
            if len(opened.answers) == opened.encoded.request.repeats:
                del self._open[index]
                answers = [opened.answers[each] for each in range(len(opened.answers))]
                return completion_of(opened.encoded, answers, opened.started)
        return None

    def _answer(self, result: GenerationOutput, opened: _Open, number: int) -> Answer | SampleError | None:
        """The answer; None if it is not finished."""
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
        """The number of tokens after which a stop string was completed; None if there was none."""
        if not opened.encoded.generation.stop:
            return None
        first, opened.checked[number] = opened.checked.get(number, 0), len(made)
        with self._text.lock:
            return next((end for end in range(first + 1, len(made) + 1) if opened.stops.met(made[:end])), None)
