"""Log-likelihoods: of the options of a question, or of a whole text. What requests share is computed once."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from hpcjobs.engines.base import BatchSize, Source, take
from hpcjobs.engines.border import Border, Span
from hpcjobs.engines.encoding import context_length
from hpcjobs.engines.passes import Heads, Passes, pack, pass_tokens, release
from hpcjobs.engines.prefix import Node, Tree
from hpcjobs.records import Completion, Likelihood, Request, SampleError

log = logging.getLogger(__name__)
# Questions looked at together: their common beginnings are found among these.
AUTO_WINDOW = 64
# Tokens of common beginnings that are kept for later questions, at most, and the share of free memory they may take.
_HEAD_TOKENS = 16_384


@dataclass(slots=True)
class Job:
    """A request with its spans, the sums over the tokens scored so far, and how many are to come."""

    request: Request
    spans: list[Span]
    logprobs: list[float] = field(default_factory=list)
    greedy: list[bool] = field(default_factory=list)
    left: int = 0

    def start(self) -> None:
        """Nothing is scored yet."""
        self.logprobs, self.greedy = [0.0] * len(self.spans), [True] * len(self.spans)
        self.left = sum(span.scored for span in self.spans)


class Scorer(Protocol):
    """Scores all spans of some jobs; gives each job when its last token is scored."""

    def score(self, jobs: Sequence[Job]) -> Iterator[Job]: ...

    def smaller(self) -> bool:
        """Take less memory from now on; False where it takes as little as it can."""
        ...

    def forget(self) -> None:
        """Drop what was kept for later jobs."""
        ...


class ScoringEngine:
    """Completions with log-likelihoods, window by window; one bad request fails alone."""

    def __init__(self, model: Any, tokenizer: Any, batch_size: BatchSize = "auto", scorer: Scorer | None = None) -> None:
        self.batch_size = AUTO_WINDOW if batch_size == "auto" else batch_size
        self._border = Border(tokenizer, context_length(model, tokenizer))
        self._scorer = scorer or TreeScorer(model)

    def stream(self, requests: Source) -> Iterator[Completion]:
        """Completions of the requests as their last token is scored."""
        ended = False
        while not ended:
            window, ended = take(requests, self.batch_size)
            jobs = list[Job]()
            for request in window:
                try:
                    jobs.append(Job(request, self._border.spans(request)))
                except Exception as error:  # nothing that a prompt does may end the rank
                    yield Completion.failed(request.index, SampleError.of(error), time.time())
            yield from self._run(jobs)
            if len(window) < self.batch_size:
                self._scorer.forget()  # a pause: with `deterministic`, what comes next must not depend on what was

    def _run(self, jobs: list[Job]) -> Iterator[Completion]:
        """The jobs' completions; where they fail, their halves', down to the one that is to blame."""
        if not jobs:
            return
        started, done = time.time(), set[int]()
        try:
            for job in self._scorer.score(jobs):
                done.add(job.request.index)
                yield _completion(job, started)
            return
        except torch.OutOfMemoryError as error:
            problem: Exception = error
            again = self._scorer.smaller()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        except Exception as error:
            problem, again = error, False
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


class TreeScorer:
    """Packs the window's prefix tree into forward passes of even size."""

    def __init__(self, model: Any) -> None:
        self._passes, self._most = Passes(model), pass_tokens(model)
        self._heads = Heads(_HEAD_TOKENS)

    def smaller(self) -> bool:
        self._most //= 2
        log.warning("out of memory: going on with passes of %d tokens", max(self._most, 16))
        return self._most >= 16

    def forget(self) -> None:
        self._heads.forget()

    def score(self, jobs: Sequence[Job]) -> Iterator[Job]:
        heads = self._heads.sequences
        spans = [(job, number) for job in jobs for number in range(len(job.spans))]
        tree = Tree([*(job.spans[number].inputs for job, number in spans), *heads], self._most)
        users = _users(tree, [job for job, _ in spans])
        targets = _targets(tree, spans)
        for sequence, leaf in zip(heads, tree.leaves[len(spans) :], strict=True):
            self._heads.recall(sequence, leaf)
        for job in jobs:
            job.start()
        for node in tree.nodes():
            # Nodes that several requests share stay until the window's end, when they are kept as heads.
            node.open = sum(id(child) in users for child in node.children) + (len(users.get(id(node), ())) > 1)
        todo = [node for node in tree.nodes() if id(node) in users and (node.kv is None or id(node) in targets)]
        for nodes in pack(todo, self._most):
            yield from self._pass(nodes, targets)
        self._keep(tree, users)

    def _pass(self, nodes: Sequence[Node], targets: dict[int, list[_Target]]) -> Iterator[Job]:
        wanted: dict[int, int] = {}
        asked: list[tuple[int, _Target]] = []
        start = 0
        for node in nodes:
            for target in targets.get(id(node), ()):
                asked.append((wanted.setdefault(start + target.offset, len(wanted)), target))
            start += len(node.tokens)
        logits = self._passes.run(nodes, list(wanted))
        for node in nodes:
            release(node)
        found = zip(asked, *_judged(logits, [row for row, _ in asked], [t.token for _, t in asked]), strict=True)
        for (_, target), logprob, greedy in found:
            job, span = target.job, target.span
            job.logprobs[span] += logprob
            job.greedy[span] &= greedy
            job.left -= 1
            if not job.left:
                yield job

    def _keep(self, tree: Tree, users: dict[int, set[int]]) -> None:
        """Of nodes that several requests share, the last ones on their paths become heads."""
        for node in tree.nodes():
            if len(users.get(id(node), ())) > 1 and not any(len(users.get(id(c), ())) > 1 for c in node.children):
                self._heads.add(node)


@dataclass(frozen=True, slots=True)
class _Target:
    """A token to be scored: at which offset of its node it is predicted, and for whom."""

    offset: int
    token: int
    job: Job
    span: int


def _users(tree: Tree, jobs: Sequence[Job]) -> dict[int, set[int]]:
    """Which requests have tokens in which node: id of the node -> indexes."""
    users: dict[int, set[int]] = {}
    for leaf, job in zip(tree.leaves, jobs, strict=False):
        for node in leaf.path():
            users.setdefault(id(node), set()).add(job.request.index)
    return users


def _targets(tree: Tree, spans: Sequence[tuple[Job, int]]) -> dict[int, list[_Target]]:
    """What is to be scored in which node."""
    found: dict[int, list[_Target]] = {}
    for (job, number), leaf in zip(spans, tree.leaves, strict=False):
        span, node = job.spans[number], leaf
        for place in range(len(span.ids) - 2, len(span.ids) - 2 - span.scored, -1):
            node = node.holder(place)
            target = _Target(place - node.start, span.ids[place + 1], job, number)
            found.setdefault(id(node), []).append(target)
    return found


_ROWS = 128


def _judged(logits: torch.Tensor, rows: list[int], tokens: list[int]) -> tuple[list[float], list[bool]]:
    """Log-probabilities of `tokens` at `rows` of the logits, and whether each is the likeliest token there.

    torch's logsumexp takes three times as long on CPUs as the sum by hand, and argmax ten times as long as amax.
    """
    totals, highest = list[torch.Tensor](), list[torch.Tensor]()
    for block in logits.split(_ROWS):
        block = block.float()
        most = block.amax(-1)
        totals.append((block - most[:, None]).exp_().sum(-1).log_() + most)
        highest.append(most)
    if not rows:
        return [], []
    row, token = torch.tensor(rows, device=logits.device), torch.tensor(tokens, device=logits.device)
    chosen = logits[row, token].float()
    return (chosen - torch.cat(totals)[row]).tolist(), (chosen >= torch.cat(highest)[row]).tolist()


def _completion(job: Job, started: float) -> Completion:
    request, took = job.request, time.time() - started
    if not all(map(math.isfinite, job.logprobs)):
        problem = SampleError("ValueError", f"log-likelihoods are not finite: {job.logprobs}")
        return Completion.failed(request.index, problem, started, took)
    scored = [span.scored for span in job.spans]
    context = len(job.spans[0].ids) - scored[0]
    if request.task == "perplexity":  # its spans are windows of one text
        found = Likelihood((math.fsum(job.logprobs),), (all(job.greedy),), (sum(scored),))
        return Completion(request.index, "", "scored", 0, sum(scored), None, started, took, likelihood=found)
    found = Likelihood(tuple(job.logprobs), tuple(job.greedy), tuple(scored), request.options)
    best = max(range(len(scored)), key=job.logprobs.__getitem__)
    text = request.options[best] if request.options else request.pairs[best].continuation
    return Completion(request.index, text, "scored", context, sum(scored), None, started, took, likelihood=found)
