"""Log-likelihoods of the options of a question, or of a whole text. Shared prefixes are computed once."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import torch

from hpcjobs.engines.base import BatchSize, Source, rows_at_once, take
from hpcjobs.engines.context_length import window_length
from hpcjobs.engines.lengths import has_fixed_positions, longest_window, takes_positions
from hpcjobs.engines.out_of_memory import free_gpu_memory, is_out_of_memory
from hpcjobs.engines.scoring.boundary import SpanBuilder
from hpcjobs.engines.scoring.sequences import PlainScorer
from hpcjobs.engines.scoring.spans import ScoringJob, Span
from hpcjobs.engines.scoring.tree import TreeScorer
from hpcjobs.engines.support import has_plain_cache
from hpcjobs.engines.vocabulary import embedding_rows
from hpcjobs.requests import Completion, Likelihood, Request, SampleError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)
# Batches per window: shared prefixes are found within a window.
_WINDOW_BATCHES = 4
# The most tokens to score per window: each needs some hundred bytes of its own.
_WINDOW_TOKENS = 1 << 18
# The longest window of a layer, in tokens, that a trial of a model goes beyond.
_MOST_TRIED = 2048
# Tokens of the branch that stands between the context and others in that trial.
_BETWEEN = 100


class Scorer(Protocol):
    """Scores all spans of some jobs, and yields each job when its last token is scored."""

    def score(self, jobs: Sequence[ScoringJob]) -> Iterator[ScoringJob]:
        """Yield each job once all its tokens are scored."""
        ...

    def smaller(self) -> bool:
        """Use less memory from now on; False if that is not possible."""
        ...

    def forget(self) -> None:
        """Drop everything kept for later jobs."""
        ...


class ScoringEngine:
    """Completions with log-likelihoods, window by window. A bad request fails alone.

    `fresh`: nothing is reused after a pause of the source, so later results are identical to the bit.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: BatchSize = "auto",
        fresh: bool = False, scorer: Scorer | None = None,
    ) -> None:  # fmt: skip
        self.batch_size = rows_at_once(batch_size)
        self._window, self._fresh = _WINDOW_BATCHES * self.batch_size, fresh
        self._span_builder = SpanBuilder(tokenizer, window_length(model, tokenizer), embedding_rows(model))
        self._scorer = scorer or scorer_of(model)

    def stream(self, requests: Source) -> Iterator[Completion]:
        """Completions of the requests as their last token is scored."""
        ended = False
        while not ended:
            window, ended = take(requests, self._window)
            jobs = list[ScoringJob]()
            for request in window:
                try:
                    job = ScoringJob(request, self._span_builder.spans(request))
                    if job.spans:
                        jobs.append(job)
                    else:
                        yield _completion(job, time.time())
                except Exception as error:  # nothing that a prompt does may end the rank
                    yield Completion.failed(request.index, SampleError.of(error), time.time())
            for group in _groups(jobs):
                yield from self._run(group)
            if self._fresh and len(window) < self._window:
                self._scorer.forget()

    def _run(self, jobs: list[ScoringJob]) -> Iterator[Completion]:
        """The jobs' completions. If they fail, they are halved, down to the one to blame."""
        if not jobs:
            return
        started, done = time.time(), set[int]()
        try:
            for job in self._scorer.score(jobs):
                done.add(job.request.index)
                yield _completion(job, started)
            return
        except Exception as error:
            problem, again = error, False
            if is_out_of_memory(error):
                again = self._scorer.smaller()
                log.warning("out of memory: going on with smaller passes")
                free_gpu_memory()
        self._scorer.forget()
        rest = [job for job in jobs if job.request.index not in done]
        log.warning("scoring %d requests failed: %s: %s", len(rest), type(problem).__name__, problem)
        if again:
            yield from self._run(rest)
        elif len(rest) == 1:
            failure = SampleError.of(problem)
            yield Completion.failed(rest[0].request.index, failure, started, time.time() - started)
        else:
            middle = len(rest) // 2
            yield from self._run(rest[:middle])
            yield from self._run(rest[middle:])


def _groups(jobs: Sequence[ScoringJob]) -> Iterator[list[ScoringJob]]:
    """The jobs in groups of at most _WINDOW_TOKENS tokens to score; one job at least."""
    group, tokens = list[ScoringJob](), 0
    for job in jobs:
        wanted = sum(span.scored for span in job.spans)
        if group and tokens + wanted > _WINDOW_TOKENS:
            yield group
            group, tokens = [], 0
        group.append(job)
        tokens += wanted
    if group:
        yield group


def scorer_of(model: PreTrainedModel) -> Scorer:
    """The tree scorer if the model's cache can be shared by branches and a small example comes out right; else the
    plain one.
    """
    plain = PlainScorer(model)
    apart = has_plain_cache(model) and has_fixed_positions(model) and takes_positions(model)
    if not apart or longest_window(model) > _MOST_TRIED:
        return plain
    try:
        if agree(TreeScorer(model), plain, model):
            return TreeScorer(model)
        problem = "its log-likelihoods with a shared cache are not those without"
    except Exception as error:  # models may refuse masks or caches in any way
        problem = f"{type(error).__name__}: {error}"
    log.warning("%s computes nothing in common for several options: %s", type(model).__name__, problem)
    return plain


def agree(one: Scorer, other: Scorer, model: PreTrainedModel) -> bool:
    """Whether two scorers agree on branches of one context, up to rounding (nats per token).

    The context is longer than each window in the config, and between it and two of the branches there is a long one:
    what goes by place in the cache, a window or a distance, is then far from right.
    """
    least = 0.001 if model.dtype == torch.float32 else 0.3
    size = min(64, int(model.config.get_text_config().vocab_size))
    head = tuple(n % size for n in range(3, 15 + longest_window(model)))
    sums = []
    for scorer in (one, other):
        branches = [(1, _BETWEEN), (3, 8), (5, 8)]  # in the order of their first tokens, as the tree has them
        ends = [Span((*head, *(n * step % size for n in range(1, length + 1))), 8) for step, length in branches]
        job = ScoringJob(Request(index=0, id="probe", prompt=""), ends)
        list(scorer.score([job]))
        sums.append(job.logprobs)
    return all(abs(a - b) <= 8 * least for a, b in zip(*sums, strict=True))


def _completion(job: ScoringJob, started: float) -> Completion:
    request, took = job.request, time.time() - started
    if not all(map(math.isfinite, job.logprobs)):
        problem = SampleError("ValueError", f"log-likelihoods are not finite: {job.logprobs}")
        return Completion.failed(request.index, problem, started, took)
    scored = [span.scored for span in job.spans]
    if request.task == "perplexity":  # its spans are windows of one text
        found = Likelihood((math.fsum(job.logprobs),), (all(job.greedy),), (sum(scored),))
        return Completion(
            index=request.index,
            text="",
            finish_reason="scored",
            prompt_tokens=0,
            completion_tokens=sum(scored),
            error=None,
            started_at=started,
            seconds=took,
            likelihood=found,
        )
    found = Likelihood(tuple(job.logprobs), tuple(job.greedy), tuple(scored), request.options)
    best = max(range(len(scored)), key=job.logprobs.__getitem__)
    text = request.options[best] if request.options else request.pairs[best].continuation
    return Completion(
        index=request.index,
        text=text,
        finish_reason="scored",
        prompt_tokens=len(job.spans[0].ids) - scored[0],
        completion_tokens=sum(scored),
        error=None,
        started_at=started,
        seconds=took,
        likelihood=found,
    )
