"""Log-likelihoods over a prefix tree: shared prefixes are computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpcjobs.engines.prefix import Node, PrefixTree
from hpcjobs.engines.scoring.passes import Passes, PrefixCache, pack, pass_tokens, release
from hpcjobs.engines.scoring.spans import ScoringJob, judge_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The most tokens of shared prefixes that are kept for later questions.
_PREFIX_TOKENS = 16_384


class TreeScorer:
    """Packs the prefix tree of all spans into forward passes of even size."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._passes, self._most = Passes(model), pass_tokens(model)
        self._prefixes = PrefixCache(_PREFIX_TOKENS)

    def smaller(self) -> bool:
        """Halve the pass size; False if it gets too small."""
        self._most //= 2
        return self._most >= 16

    def forget(self) -> None:
        """Drop the stored prefixes."""
        self._prefixes.forget()

    def score(self, jobs: Sequence[ScoringJob]) -> Iterator[ScoringJob]:
        """Yield each job once all its tokens are scored."""
        prefixes = self._prefixes.sequences
        spans = [(job, number) for job in jobs for number in range(len(job.spans))]
        tree = PrefixTree([*(job.spans[number].inputs for job, number in spans), *prefixes], self._most)
        users, targets = _users(tree, [job for job, _ in spans]), _targets(tree, spans)
        for sequence, leaf in zip(prefixes, tree.leaves[len(spans) :], strict=True):
            self._prefixes.recall(sequence, leaf)
        for job in jobs:
            job.start()
        for node in tree.nodes():
            # Nodes that several requests share stay until the end of the window, when they are kept as prefixes.
            node.open = sum(id(child) in users for child in node.children) + (len(users.get(id(node), ())) > 1)
        todo = [node for node in tree.nodes() if id(node) in users and (node.kv is None or id(node) in targets)]
        for nodes in pack(todo, self._most):
            yield from self._pass(nodes, targets)
        self._keep(tree, users)

    def _pass(self, nodes: Sequence[Node], targets: dict[int, list[_Target]]) -> Iterator[ScoringJob]:
        wanted: dict[int, int] = {}
        scored: list[tuple[int, _Target]] = []
        start = 0
        for node in nodes:
            for target in targets.get(id(node), ()):
                scored.append((wanted.setdefault(start + target.offset, len(wanted)), target))
            start += len(node.tokens)
        logits = self._passes.run(nodes, list(wanted))
        for node in nodes:
            release(node)
        judged = judge_tokens(logits, [row for row, _ in scored], [target.token for _, target in scored])
        for (_, target), (logprob, greedy) in zip(scored, judged, strict=True):
            if target.job.add(target.span, logprob, greedy):
                yield target.job

    def _keep(self, tree: PrefixTree, users: dict[int, set[int]]) -> None:
        """Keep the longest prefixes that several requests share."""
        for node in tree.nodes():
            if len(users.get(id(node), ())) > 1 and not any(len(users.get(id(c), ())) > 1 for c in node.children):
                self._prefixes.add(node)


@dataclass(frozen=True, slots=True)
class _Target:
    """A token to score: the offset in its node at which it is predicted, and its span."""

    offset: int
    token: int
    job: ScoringJob
    span: int


def _users(tree: PrefixTree, jobs: Sequence[ScoringJob]) -> dict[int, set[int]]:
    """The requests that have tokens in each node: node id -> request indexes."""
    users: dict[int, set[int]] = {}
    for leaf, job in zip(tree.leaves, jobs, strict=False):
        for node in leaf.path():
            users.setdefault(id(node), set()).add(job.request.index)
    return users


def _targets(tree: PrefixTree, spans: Sequence[tuple[ScoringJob, int]]) -> dict[int, list[_Target]]:
    """The tokens to score in each node, by node id."""
    found: dict[int, list[_Target]] = {}
    for (job, number), leaf in zip(spans, tree.leaves, strict=False):
        span, node = job.spans[number], leaf
        for place, token in reversed(list(enumerate(span.targets, span.first))):
            node = node.holder(place)
            found.setdefault(id(node), []).append(_Target(place - node.start, token, job, number))
    return found
