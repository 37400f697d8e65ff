"""A row: one answer being generated, from its prompt to its end token."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from hpcjobs.engines.encoding import Encoded, repeat_seed
from hpcjobs.engines.loop.packed import Piece
from hpcjobs.engines.processors import processed
from hpcjobs.engines.sampling import Sampling, perturbed
from hpcjobs.engines.stop_strings import StopStrings

if TYPE_CHECKING:
    from transformers import LogitsProcessor


@dataclass(eq=False, slots=True, kw_only=True)
class Row:
    """Answer `number` to a request. `tokens` are those of the prompt and the new ones.

    The first `stored` of them have keys and values in `place`; -1 is no place. Before its next piece, `copied` columns
    are copied from place `source`.
    """

    encoded: Encoded
    number: int
    stops: StopStrings
    processors: Sequence[LogitsProcessor] = ()
    tokens: list[int] = field(default_factory=list)
    place: int = -1
    stored: int = 0
    source: int = -1
    copied: int = 0
    begun: bool = False
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        self.tokens = list(self.encoded.ids)
        if self.encoded.generation.temperature > 0:
            self.generator = torch.Generator().manual_seed(repeat_seed(self.encoded.request, self.number))

    @property
    def made(self) -> list[int]:
        """The new tokens."""
        return self.tokens[len(self.encoded.ids) :]

    def piece(self, most: int) -> Piece:
        """The next tokens to run: the last one, or at most `most` of those that are not stored."""
        end = min(len(self.tokens), self.stored + most)
        return Piece(
            place=self.place,
            start=self.stored,
            tokens=self.tokens[self.stored : end],
            last=end == len(self.tokens),
            source=self.source,
            copied=self.copied,
        )

    def took(self, piece: Piece) -> None:
        """Note that the piece is stored."""
        self.stored, self.source, self.copied = piece.end, -1, 0

    def unshare(self) -> None:
        """Compute the columns that were to be copied."""
        if self.copied:
            self.stored, self.source, self.copied = 0, -1, 0

    def evict(self) -> None:
        """Lose the place. The new tokens are kept, and are stored again with the prompt later."""
        self.place, self.stored, self.source, self.copied, self.begun = -1, 0, -1, 0, False

    def add(self, token: int, tokenizer_lock: threading.Lock) -> bool:
        """Add a token; returns whether the answer ends with it."""
        self.tokens.append(token)
        if token in self.encoded.ends or len(self.tokens) - len(self.encoded.ids) >= self.encoded.limit:
            return True
        if not self.encoded.generation.stop:
            return False
        with tokenizer_lock:
            return self.stops.met(self.made)


def choose(rows: Sequence[Row], logits: torch.Tensor) -> list[int | None]:
    """The next token of each row, from logits [rows, vocabulary]; None if the logits are not finite."""
    largest, tokens = logits.max(dim=-1)
    good = largest.isfinite().tolist()
    chosen: list[int | None] = [token if fine else None for token, fine in zip(tokens.tolist(), good, strict=True)]
    groups: dict[Sampling, list[int]] = {}
    changed: dict[int, torch.Tensor] = {}
    for number, row in enumerate(rows):
        if not good[number]:
            continue
        if row.processors:
            changed[number] = processed(row.processors, row.tokens, logits[number])
            chosen[number] = int(changed[number].argmax())
        if row.generator is not None:
            groups.setdefault(Sampling.of(row.encoded.generation), []).append(number)
    for sampling, numbers in groups.items():
        scores = torch.stack([changed.get(number, logits[number]) for number in numbers])
        drawn = _drawn([rows[number] for number in numbers], scores, sampling)
        for number, token in zip(numbers, drawn, strict=True):
            chosen[number] = token
    return chosen


def _drawn(rows: Sequence[Row], scores: torch.Tensor, sampling: Sampling) -> list[int]:
    """A sampled token per row. If that fails, generators are reset, so the next try draws the same."""
    generators = [row.generator for row in rows if row.generator is not None]
    states = [generator.get_state() for generator in generators]
    try:
        tokens: list[int] = perturbed(scores, generators, sampling).argmax(dim=-1).tolist()
    except BaseException:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        raise
    return tokens
