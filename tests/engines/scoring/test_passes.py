"""What one pass over a prefix tree sees, and what is kept of it, against brute force over the tree's paths."""

from __future__ import annotations

from typing import Any

import pytest

from hpcjobs.engines.prefix import Node, PrefixTree

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.model


def tree() -> tuple[Node, Node, Node, Node]:
    """A stem of 3 tokens, two branches of 2 and 1, and a leaf of 2 below the first."""
    stem = Node(start=0, tokens=()).child((1, 2, 3))
    left, right = stem.child((4, 5)), stem.child((6,))
    return stem, left, right, left.child((7, 8))


def sees(row: tuple[Node, int], column: tuple[Node, int]) -> bool:
    """Whether a token's path, up to itself, has the other token."""
    return column[1] <= row[1] and any(one is column[0] for one in row[0].path())


@pytest.mark.parametrize("computed", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_token_sees_its_own_path_and_no_other_branch(computed: int, dtype: Any) -> None:
    from hpcjobs.engines.scoring.passes import _ancestors, _mask

    every = tree()
    before, nodes = list(every[:computed]), list(every[computed:])
    assert _ancestors(nodes) == before
    columns, rows = (
        [(node, place) for node in some for place in range(node.start, node.end)] for some in (every, nodes)
    )
    mask = _mask(before, nodes, dtype)
    assert (mask.shape, mask.dtype) == ((1, 1, len(rows), len(columns)), dtype)
    hidden = torch.finfo(dtype).min
    assert mask[0, 0].tolist() == [[0.0 if sees(row, one) else hidden for one in columns] for row in rows]


@pytest.mark.parametrize(
    ("most", "passes"),
    [
        (1, [[3], [2], [1], [2]]), (3, [[3], [2, 1], [2]]), (5, [[3, 2], [1, 2]]), (6, [[3, 2, 1], [2]]),
        (7, [[3, 2, 1], [2]]), (8, [[3, 2, 1, 2]]),
    ],
)  # fmt: skip
def test_nodes_are_packed_up_to_the_most_tokens(most: int, passes: list[list[int]]) -> None:
    from hpcjobs.engines.scoring.passes import pack

    assert [[len(node.tokens) for node in one] for one in pack(tree(), most)] == passes
    assert list(pack([], most)) == []


class Layer:
    """Keys and values of 10 tokens, each its own number."""

    def __init__(self, first: float) -> None:
        self.keys = torch.arange(first, first + 10.0).reshape(1, 1, 10, 1)
        self.values = self.keys + 0.5


def numbers(kv: Any) -> list[tuple[list[float], list[float]]]:
    return [(keys.flatten().tolist(), values.flatten().tolist()) for keys, values in kv]


def test_each_open_node_keeps_its_own_keys_and_values_and_not_the_pass() -> None:
    from types import SimpleNamespace

    from hpcjobs.engines.scoring.passes import _store

    stem, left, right, leaf = tree()
    stem.open = right.open = 1
    cache: Any = SimpleNamespace(layers=[Layer(0.0), Layer(100.0)])
    _store([stem, left, right, leaf], cache, 2)
    assert numbers(stem.kv) == [
        ([2, 3, 4], [2.5, 3.5, 4.5]), ([102, 103, 104], [102.5, 103.5, 104.5]),
    ]  # fmt: skip
    assert numbers(right.kv) == [([7], [7.5]), ([107], [107.5])]
    assert (left.kv, leaf.kv) == (None, None)
    assert right.kv is not None
    assert right.kv[0][0].untyped_storage().nbytes() == 4, "a copy"


def test_what_is_recalled_is_what_was_kept() -> None:
    from hpcjobs.engines.scoring.passes import PrefixCache

    stem, left, _, _ = tree()
    stem.kv = [(torch.tensor([[[[1.0], [2.0], [3.0]]]]), torch.tensor([[[[1.5], [2.5], [3.5]]]]))] * 2
    left.kv = [(torch.tensor([[[[4.0], [5.0]]]]), torch.tensor([[[[4.5], [5.5]]]]))] * 2
    cache = PrefixCache(9)
    cache.add(left)
    assert (cache.sequences, len(cache)) == ([(1, 2, 3, 4, 5)], 5)
    again = Node(start=0, tokens=()).child((1, 2)).child((3, 4)).child((5,))
    cache.recall((1, 2, 3, 4, 5), again)
    nodes = [node for node in again.path() if node.tokens]
    assert [numbers(node.kv) for node in nodes] == [
        [([5], [5.5])] * 2, [([3, 4], [3.5, 4.5])] * 2, [([1, 2], [1.5, 2.5])] * 2,
    ]  # fmt: skip
    assert next(node for node in again.path() if not node.tokens).kv is None
    cache.forget()
    assert (cache.sequences, len(cache)) == ([], 0)


def test_a_prefix_of_the_most_tokens_is_kept_and_a_longer_one_not() -> None:
    from hpcjobs.engines.scoring.passes import PrefixCache

    for most, kept in ((3, 3), (2, 0)):
        stem = tree()[0]
        stem.kv = [(torch.zeros(1, 1, 3, 1), torch.zeros(1, 1, 3, 1))]
        cache = PrefixCache(most)
        cache.add(stem)
        assert len(cache) == kept


def test_a_node_is_released_with_its_last_child_and_up_to_the_root() -> None:
    from hpcjobs.engines.scoring.passes import release

    stem, left, right, leaf = tree()
    root = stem.parent
    assert root is not None
    root.open, stem.open, left.open = 1, 2, 1
    for node in (stem, left, right, leaf):
        node.kv = []
    release(left)
    assert (left.kv, left.open, stem.open) == ([], 1, 2), "its leaf is to come"
    release(leaf)
    assert (leaf.kv, left.kv, stem.kv, left.open, stem.open) == (None, None, [], 0, 1)
    release(right)
    assert (right.kv, stem.kv, stem.open, root.open) == (None, None, 0, 0)


@pytest.mark.parametrize("kept", [True, False])
def test_tokens_are_scored_where_they_are_predicted(kept: bool) -> None:
    """Also behind nodes that are computed; of two spans of one sequence each has its own tokens."""
    from hpcjobs.engines.scoring.spans import ScoringJob, Span
    from hpcjobs.engines.scoring.tree import _targets, _users
    from hpcjobs.requests import Request

    spans = [Span((1, 2, 3, 4, 5, 6), 3), Span((1, 2, 3, 4, 5, 7), 1), Span((9, 8), 1)]
    jobs = [
        ScoringJob(Request(index=4, id="", prompt=""), spans[:2]),
        ScoringJob(Request(index=6, id="", prompt=""), spans[2:]),
    ]
    told = [(jobs[0], 0), (jobs[0], 1), (jobs[1], 0)]
    grown = PrefixTree([*(job.spans[number].inputs for job, number in told), *([(1, 2, 3, 4)] if kept else [])], 3)
    users = _users(grown, [job for job, _ in told])
    assert {node.tokens: users[id(node)] for node in grown.nodes()} == (
        {(9,): {6}, (1, 2, 3): {4}, (4,): {4}, (5,): {4}} if kept else {(9,): {6}, (1, 2, 3): {4}, (4, 5): {4}}
    )
    found = [
        (node.start + target.offset, target.token, target.job.request.index, target.span)
        for node in grown.nodes() for target in _targets(grown, told).get(id(node), ())
    ]  # fmt: skip
    assert sorted(found) == [(0, 8, 6, 0), (2, 4, 4, 0), (3, 5, 4, 0), (4, 6, 4, 0), (4, 7, 4, 1)]
    for node in grown.nodes():
        assert all(0 <= target.offset < len(node.tokens) for target in _targets(grown, told).get(id(node), ()))
