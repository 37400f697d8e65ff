"""Log-likelihoods from whole sequences, for models whose cache cannot be shared by branches."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from hpcjobs.engines.lengths import forget_lengths, has_fixed_positions
from hpcjobs.engines.scoring.logit_parts import LogitParts
from hpcjobs.engines.scoring.passes import pass_tokens
from hpcjobs.engines.scoring.spans import ScoringJob, judge_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PlainScorer:
    """Runs each distinct sequence once, in batches of similar length. Nothing else is shared.

    Of equal length where positions depend on the longest row.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model, self._most = model, pass_tokens(model)
        self._pads = has_fixed_positions(model)
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._parts = LogitParts(model)

    def smaller(self) -> bool:
        """Halve the pass size; False if it gets too small."""
        self._most //= 2
        return self._most >= 16

    def forget(self) -> None:
        """Do nothing: nothing is kept."""

    def score(self, jobs: Sequence[ScoringJob]) -> Iterator[ScoringJob]:
        """Yield each job once all its tokens are scored."""
        users: dict[tuple[int, ...], list[tuple[ScoringJob, int]]] = {}
        for job in jobs:
            job.start()
            for number, span in enumerate(job.spans):
                users.setdefault(span.inputs, []).append((job, number))
        for batch in self._batches(sorted(users, key=len, reverse=True)):
            yield from self._run([(sequence, users[sequence]) for sequence in batch])

    def _batches(self, sequences: Sequence[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
        """As many as fit a pass, the longest first; one at least."""
        start = 0
        while start < len(sequences):
            length = len(sequences[start])
            batch = sequences[start : start + max(1, self._most // length)]
            if not self._pads:
                batch = [sequence for sequence in batch if len(sequence) == length]
            yield list(batch)
            start += len(batch)

    @torch.inference_mode()
    def _run(self, batch: Sequence[tuple[tuple[int, ...], list[tuple[ScoringJob, int]]]]) -> Iterator[ScoringJob]:
        length, device = len(batch[0][0]), self._model.device
        ids = torch.zeros(len(batch), length, dtype=torch.long)
        mask = torch.zeros(len(batch), length, dtype=torch.long)
        for row, (sequence, _) in enumerate(batch):  # padding on the right: what is causal never sees it
            ids[row, : len(sequence)] = torch.tensor(sequence)
            mask[row, : len(sequence)] = 1
        first = min(job.spans[n].first for _, users in batch for job, n in users)
        if length - first > self._most and self._keeps_logits and self._parts.works:
            yield from self._long(ids.to(device), first, batch[0][1])
            return
        keep = {"logits_to_keep": length - first} if self._keeps_logits else {}
        forget_lengths(self._model)
        output = self._model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False, **keep)
        logits = output.logits[:, -(length - first) :]
        for row, (_, users) in enumerate(batch):
            for job, number in users:
                span = job.spans[number]
                scored = logits[row, span.first - first :][: span.scored]
                for logprob, greedy in judge_tokens(scored, range(span.scored), span.targets):
                    if job.add(number, logprob, greedy):
                        yield job

    def _long(self, ids: torch.Tensor, first: int, users: Sequence[tuple[ScoringJob, int]]) -> Iterator[ScoringJob]:
        """Score a sequence whose logits take more than a pass; it is alone in its batch."""
        forget_lengths(self._model)
        start = first
        for logits in self._parts.of(ids, first, self._most):
            end = start + len(logits)
            for job, number in users:
                span = job.spans[number]
                low = max(start, span.first)
                rows = range(low - start, len(logits))
                for logprob, greedy in judge_tokens(logits, rows, span.targets[low - span.first : end - span.first]):
                    if job.add(number, logprob, greedy):
                        yield job
            start = end
