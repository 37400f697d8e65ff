"""Tokens to score, and the sums over those that are scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from hpcjobs.requests import Request

_ROWS = 128


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens of which the last `scored` are to be scored, each conditioned on all before it."""

    ids: tuple[int, ...]
    scored: int

    @property
    def inputs(self) -> tuple[int, ...]:
        """The model's input: all tokens but the last, which is only predicted."""
        return self.ids[:-1]

    @property
    def first(self) -> int:
        """The position in `inputs` that predicts the first scored token."""
        return len(self.ids) - 1 - self.scored

    @property
    def targets(self) -> tuple[int, ...]:
        """The tokens to score."""
        return self.ids[len(self.ids) - self.scored :]


@dataclass(slots=True)
class ScoringJob:
    """A request with its spans, the sums over the tokens scored so far, and how many are left."""

    request: Request
    spans: list[Span]
    logprobs: list[float] = field(default_factory=list)
    greedy: list[bool] = field(default_factory=list)
    left: int = 0

    def start(self) -> None:
        """Reset the sums."""
        self.logprobs, self.greedy = [0.0] * len(self.spans), [True] * len(self.spans)
        self.left = sum(span.scored for span in self.spans)

    def add(self, span: int, logprob: float, greedy: bool) -> bool:
        """Add a scored token of a span; True if it was the job's last one."""
        self.logprobs[span] += logprob
        self.greedy[span] &= greedy
        self.left -= 1
        return not self.left


def judge_tokens(logits: torch.Tensor, rows: Sequence[int], tokens: Sequence[int]) -> Iterator[tuple[float, bool]]:
    """(log-probability, whether it is the argmax) of each of `tokens` at the `rows` of `logits`.

    torch's logsumexp takes three times as long on CPUs as the explicit sum, and argmax ten times as long as amax.
    """
    if not rows:
        return iter(())
    totals, highest = list[torch.Tensor](), list[torch.Tensor]()
    for start in range(0, len(logits), _ROWS):
        block = logits[start : start + _ROWS].float()
        most = block.amax(-1)
        totals.append((block - most[:, None]).exp_().sum(-1).log_() + most)
        highest.append(most)
    row, token = torch.tensor(list(rows), device=logits.device), torch.tensor(tokens, device=logits.device)
    chosen = logits[row, token].float()
    logprobs, greedy = chosen - torch.cat(totals)[row], chosen >= torch.cat(highest)[row]
    return zip(logprobs.tolist(), greedy.tolist(), strict=True)
