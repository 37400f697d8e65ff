"""Log-likelihoods over a prefix tree: what several spans have in common is computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpcjobs.engines.prefix import Node, Tree
from hpcjobs.engines.scoring.passes import Heads, Passes, pack, pass_tokens, release
from hpcjobs.engines.scoring.spans import Job, judge_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Tokens of common beginnings that are kept for later questions, at most.
_HEAD_TOKENS = 16_384


class TreeScorer:
    """Packs the prefix tree of all spans into forward passes of even size."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._passes, self._most = Passes(model), pass_tokens(model)
        self._heads = Heads(_HEAD_TOKENS)

    def smaller(self) -> bool:
        self._most //= 2
        return self._most >= 16

    def forget(self) -> None:
        self._heads.forget()

    def score(self, jobs: Sequence[Job]) -> Iterator[Job]:
        heads = self._heads.sequences
        spans = [(job, number) for job in jobs for number in range(len(job.spans))]
        tree = Tree([*(job.spans[number].inputs for job, number in spans), *heads], self._most)
        users, targets = _users(tree, [job for job, _ in spans]), _targets(tree, spans)
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
        judged = judge_tokens(logits, [row for row, _ in asked], [target.token for _, target in asked])
        for (_, target), (logprob, greedy) in zip(asked, judged, strict=True):
            if target.job.add(target.span, logprob, greedy):
                yield target.job

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
        for place, token in reversed(list(enumerate(span.targets, span.first))):
            node = node.holder(place)
            found.setdefault(id(node), []).append(_Target(place - node.start, token, job, number))
    return found
