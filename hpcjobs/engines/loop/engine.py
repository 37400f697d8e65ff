"""loop: a batched decode loop. A finished row makes room at once, so the batch stays full."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hpcjobs.config import GenerationConfig
from hpcjobs.engines.base import Source
from hpcjobs.engines.encoding import NO_NUMBERS, Answer, Encoded, TextCodec, completion_of
from hpcjobs.engines.intake import Intake, TextThread
from hpcjobs.engines.loop.packed import PackedModel, Piece
from hpcjobs.engines.loop.places import Places
from hpcjobs.engines.loop.row import Row, choose
from hpcjobs.engines.out_of_memory import free_gpu_memory, is_out_of_memory
from hpcjobs.engines.stop_strings import StopStrings
from hpcjobs.requests import Completion, SampleError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)
# Prompt tokens per pass, beside one token of each decoding row: enough to use the matrix units.
_PASS_TOKENS = {"cpu": 1024, "cuda": 8192}
# The most tokens per piece: more would need large masks without a gain.
_PIECE_TOKENS = 512
Made = int | SampleError


class LoopEngine:
    """Continuous batching over the forward pass of any causal model that PackedModel can run.

    At most `batch_size` rows at once, halved when memory runs out. A bad prompt fails alone. Greedy tokens equal those
    of `generate`, up to rounding.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, generation: GenerationConfig, batch_size: int
    ) -> None:
        self.model, self.codec, self.batch_size = model, TextCodec(model, tokenizer, generation), batch_size

    def stream(self, requests: Source) -> Iterator[Completion]:
        """Completions in the order in which they finish."""
        with TextThread(self.codec) as text:
            yield from _Flow(self, text, Intake(requests, text, max(2, self.batch_size // 8))).run()


@dataclass(eq=False, slots=True)
class _Open:
    """A running request and its finished answers."""

    encoded: Encoded
    started: float
    answers: dict[int, Future[Answer] | SampleError] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether all answers are there, and decoded."""
        return self.ended and all(isinstance(answer, SampleError) or answer.done() for answer in self.answers.values())

    @property
    def ended(self) -> bool:
        return len(self.answers) == self.encoded.request.repeats

    def completion(self) -> Completion:
        index = self.encoded.request.index
        try:
            answers = [self.answers[number] for number in range(self.encoded.request.repeats)]
            errors = [answer for answer in answers if isinstance(answer, SampleError)]
            good = [answer.result() for answer in answers if not isinstance(answer, SampleError)]
        except Exception as error:  # a tokenizer that cannot decode
            good, errors = [], [SampleError.of(error)]
        if errors:
            return Completion.failed(index, errors[0], self.started, time.time() - self.started)
        return completion_of(self.encoded, good, self.started)


class _Flow:
    """One stream: admit requests, advance rows, yield completions."""

    def __init__(self, engine: LoopEngine, text: TextThread, intake: Intake) -> None:
        self._engine, self._text, self._intake = engine, text, intake
        self._packed = PackedModel(engine.model, engine.batch_size)
        self._places = Places(engine.batch_size)
        self._rows: list[Row] = []
        self._waiting: deque[Row] = deque()
        self._open: dict[int, _Open] = {}
        self._ended: deque[_Open] = deque()
        self._stops: dict[tuple[str, ...], StopStrings] = {}
        self._pass_tokens = _PASS_TOKENS.get(engine.model.device.type, _PASS_TOKENS["cpu"])

    def run(self) -> Iterator[Completion]:
        while not (self._intake.ended and self._intake.empty and not self._open):
            yield from self._admit()
            if self._rows:
                self._settle(self._advance(self._rows))
            while self._ended and (self._ended[0].ready or not self._rows):
                done = self._ended.popleft()
                del self._open[done.encoded.request.index]
                yield done.completion()
            if not self._open and self._intake.empty:  # after a pause, nothing shall depend on what was before
                self._places.forget()

    def _admit(self) -> Iterator[Completion]:
        """Fill the free places, first with evicted rows."""
        room = self._places.free
        for got in self._intake.take(max(0, room - len(self._waiting)), len(self._open)):
            if isinstance(got, Completion):
                yield got
                continue
            self._open[got.request.index] = _Open(got, time.time())
            self._waiting.extend(self._row(got, number) for number in range(got.request.repeats))
        new = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
        self._places.give(new)
        self._rows += sorted(new, key=lambda row: row.place)

    def _row(self, encoded: Encoded, number: int) -> Row:
        stop = encoded.generation.stop
        if stop not in self._stops:
            self._stops[stop] = StopStrings(self._engine.codec.tokenizer, stop)
        processors = self._engine.codec.processors(encoded)
        return Row(encoded=encoded, number=number, stops=self._stops[stop], processors=processors)

    def _advance(self, rows: Sequence[Row]) -> list[tuple[Row, Made]]:
        """Run one pass: a token for each row whose prompt is stored. A pass that fails is halved."""
        planned = self._plan(rows)
        pieces = [piece for _, piece in planned]
        try:
            numbers, logits = self._packed.logits(pieces)
            made = choose([planned[number][0] for number in numbers], logits)
        except Exception as error:
            return self._failed([row for row, _ in planned], error)
        for row, piece in planned:
            row.took(piece)
        tokens = zip(numbers, made, strict=True)
        return [(planned[number][0], NO_NUMBERS if token is None else token) for number, token in tokens]

    def _plan(self, rows: Sequence[Row]) -> list[tuple[Row, Piece]]:
        """The next piece of each row; prompts only as far as they fit the pass."""
        left, planned = self._pass_tokens, []
        for row in rows:
            if left <= 0 and len(row.tokens) - row.stored > 1:
                continue
            if row.stored == 0 and not row.begun:
                self._places.begin(row)
                row.begun = True
            piece = row.piece(min(_PIECE_TOKENS, max(1, left)))
            if piece.end <= len(row.encoded.ids):
                self._places.holds(row, piece)
                left -= len(piece.tokens)
            planned.append((row, piece))
        return planned

    def _failed(self, rows: Sequence[Row], error: Exception) -> list[tuple[Row, Made]]:
        """Handle a failed pass: halve the batch if memory ran out, else find the row to blame."""
        if len(rows) == 1:
            return [(rows[0], SampleError.of(error))]
        if is_out_of_memory(error):
            self._make_room()
            return []
        log.warning("a pass over %d rows failed: %s: %s", len(rows), type(error).__name__, error)
        for row in rows:
            row.unshare()  # its source may be the row that fails
        middle = len(rows) // 2
        return self._advance(rows[:middle]) + self._advance(rows[middle:])

    def _make_room(self) -> None:
        """Halve the batch size and evict all rows. Their new tokens are kept, and stored again later."""
        engine = self._engine
        engine.batch_size = max(1, len(self._rows) // 2)
        log.warning("out of memory with a batch of %d: going on with %d", len(self._rows), engine.batch_size)
        for row in self._rows:
            row.evict()
        self._waiting.extendleft(reversed(self._rows))
        self._rows = []
        self._packed.cache.clear(engine.batch_size)
        self._places = Places(engine.batch_size)
        free_gpu_memory()

    def _settle(self, made: Sequence[tuple[Row, Made]]) -> None:
        """Append the tokens to their rows; finished rows leave."""
        for row, token in made:
            if isinstance(token, SampleError):
                self._leave(row, token)
            elif row.add(token, self._text.lock):
                self._leave(row, self._text.answer(row.made, row.encoded.generation))

    def _leave(self, row: Row, answer: Future[Answer] | SampleError) -> None:
        failed = isinstance(answer, SampleError)
        if failed:
            self._packed.cache.wipe(row.place)
        self._places.take_back(row, whole=not failed)
        self._rows.remove(row)
        opened = self._open[row.encoded.request.index]
        opened.answers[row.number] = answer
        if opened.ended:
            self._ended.append(opened)
