"""A prefix tree of token sequences: shared prefixes are computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# A shorter common prefix is not worth a node.
LEAST_SHARED = 4


@dataclass(eq=False, slots=True, kw_only=True)
class Node:
    """Tokens shared by one or more sequences, at positions `start`...; `kv` has their keys and values once computed.

    `open` counts the children that are not computed yet, with all below them: until then `kv` is needed.
    """

    start: int
    tokens: tuple[int, ...]
    parent: Node | None = None
    children: list[Node] = field(default_factory=list)
    open: int = 0
    kv: list[tuple[torch.Tensor, torch.Tensor]] | None = None

    @property
    def end(self) -> int:
        """The position after the last token."""
        return self.start + len(self.tokens)

    def path(self) -> Iterator[Node]:
        """This node and its ancestors, towards the root."""
        node: Node | None = self
        while node is not None:
            yield node
            node = node.parent

    def child(self, tokens: tuple[int, ...]) -> Node:
        """Add and return a new last child with these tokens."""
        made = Node(start=self.end, tokens=tokens, parent=self)
        self.children.append(made)
        return made

    def holder(self, place: int) -> Node:
        """The node on this path that has the token at position `place`."""
        return next(node for node in self.path() if node.start <= place)


class PrefixTree:
    """Sequences as paths from one empty root. `leaves[n]` is the node at which sequence n ends."""

    def __init__(self, sequences: Sequence[tuple[int, ...]], longest: int) -> None:
        """`longest` is the most tokens a node may have: longer ones are chains of several."""
        self.root, self._longest = Node(start=0, tokens=()), longest
        self.leaves: list[Node] = [self.root] * len(sequences)
        order = sorted(range(len(sequences)), key=sequences.__getitem__)
        self._grow(self.root, [(sequences[number], number) for number in order])

    def _grow(self, node: Node, group: list[tuple[tuple[int, ...], int]]) -> None:
        """Insert the sorted sequences of `group`, which all begin with the path to `node`, below it."""
        stack = [(node, group)]
        while stack:
            node, group = stack.pop()
            for several in _families(group, node.end):
                first, last = several[0][0], several[-1][0]
                end = shared_head(first, last) if len(several) > 1 else len(first)
                tip = self._chain(node, first[node.end : end])
                for sequence, number in several:
                    if len(sequence) == end:
                        self.leaves[number] = tip
                rest = [one for one in several if len(one[0]) > end]
                if rest:
                    stack.append((tip, rest))

    def _chain(self, node: Node, tokens: tuple[int, ...]) -> Node:
        for start in range(0, len(tokens), self._longest):
            node = node.child(tokens[start : start + self._longest])
        return node

    def nodes(self) -> Iterator[Node]:
        """All nodes with tokens: parents before children, siblings together."""
        stack = list(reversed(self.root.children))
        while stack:
            node = stack.pop()
            yield node
            stack += reversed(node.children)


def _families(group: list[tuple[tuple[int, ...], int]], start: int) -> Iterator[list[tuple[tuple[int, ...], int]]]:
    """Split sorted sequences wherever neighbours share fewer than LEAST_SHARED tokens from `start` on."""
    family = group[:1]
    for one in group[1:]:
        before = family[-1][0]
        least = min(start + LEAST_SHARED, len(before), len(one[0]))
        if before[start:least] == one[0][start:least] and least > start:
            family.append(one)
        else:
            yield family
            family = [one]
    yield family


def shared_head(first: Sequence[int], second: Sequence[int]) -> int:
    """The length of the common prefix of two sequences. Comparing slices is fast."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
