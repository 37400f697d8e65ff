"""Forward passes over a prefix tree: many branches packed into one sequence; each sees its own path only."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
import transformers

from hpcjobs.engines.prefix import Node

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

# Keys and values of some tokens, one pair per layer, each [1, heads, tokens, head size].
KeysValues = list[tuple[torch.Tensor, torch.Tensor]]
# The most bytes for the logits of one pass, as float32.
_LOGITS_BYTES = 256 << 20


def pack(nodes: Iterable[Node], most: int) -> Iterator[list[Node]]:
    """The nodes in passes of at most `most` tokens, parents never after their children."""
    batch, tokens = list[Node](), 0
    for node in nodes:
        if batch and tokens + len(node.tokens) > most:
            yield batch
            batch, tokens = [], 0
        batch.append(node)
        tokens += len(node.tokens)
    if batch:
        yield batch


def pass_tokens(model: PreTrainedModel) -> int:
    """The most tokens per pass: enough to use the matrix units, few enough for memory.

    On CPUs the cost per token is flat from 256 to 512 tokens (measured: larger products gain what attention between
    masked branches loses).
    """
    vocabulary = int(model.config.get_text_config().vocab_size)
    return max(32, min(384 if model.device.type == "cpu" else 2048, _LOGITS_BYTES // (4 * vocabulary)))


class Passes:
    """Runs packed nodes through a causal model with a plain key-value cache."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters

    @torch.inference_mode()
    def run(self, nodes: Sequence[Node], wanted: Sequence[int]) -> torch.Tensor:
        """Logits [len(wanted), vocabulary] of the tokens at places `wanted` of the pass. Sets the nodes' `kv`.

        The keys and values of each node's ancestors must exist, or be computed in this pass.
        """
        before, device = _ancestors(nodes), self._model.device
        cache = transformers.DynamicCache()
        for layer, parts in enumerate(zip(*(node.kv for node in before), strict=True)):
            cache.update(torch.cat([k for k, _ in parts], 2), torch.cat([v for _, v in parts], 2), layer)
        ids = torch.tensor([[token for node in nodes for token in node.tokens]], device=device)
        places = torch.tensor([[place for node in nodes for place in range(node.start, node.end)]], device=device)
        mask = _mask(before, nodes, self._model.dtype).to(device)
        keep = torch.tensor(wanted, dtype=torch.long, device=device)
        output = self._model(
            input_ids=ids, position_ids=places, attention_mask=mask, past_key_values=cache, use_cache=True,
            **({"logits_to_keep": keep} if self._keeps_logits else {}),
        )  # fmt: skip
        _store(nodes, cache, sum(len(node.tokens) for node in before))
        logits: torch.Tensor = output.logits[0]
        return logits if self._keeps_logits else logits[keep]


def _ancestors(nodes: Sequence[Node]) -> list[Node]:
    """The ancestors of the nodes that are outside this pass, each once."""
    here = {id(node) for node in nodes}
    found: dict[int, Node] = {}
    for node in nodes:
        for one in node.path():
            if one.tokens and id(one) not in here:
                found.setdefault(id(one), one)
    return list(found.values())


def _mask(before: Sequence[Node], nodes: Sequence[Node], dtype: torch.dtype) -> torch.Tensor:
    """The attention mask [1, 1, tokens of the pass, tokens attended to]: 0 where a token attends, else the least number
    of `dtype`.

    An additive mask is faster on CPUs than a boolean one.
    """
    nodes_seen = [*before, *nodes]
    number = {id(node): place for place, node in enumerate(nodes_seen)}
    paths = torch.zeros(len(nodes), len(nodes_seen), dtype=torch.bool)
    for row, node in enumerate(nodes):
        paths[row, [number[id(one)] for one in node.path() if one.tokens]] = True
    sizes = torch.tensor([len(node.tokens) for node in nodes_seen])
    own = sizes[len(before) :]
    columns, rows = torch.repeat_interleave(sizes), torch.repeat_interleave(own)
    place = torch.cat([torch.arange(node.start, node.end) for node in nodes_seen])
    visible = paths[rows][:, columns] & (place[None, :] <= place[len(place) - len(rows) :, None])
    mask = torch.zeros(visible.shape, dtype=dtype).masked_fill_(~visible, torch.finfo(dtype).min)
    return mask[None, None]


def _store(nodes: Sequence[Node], cache: Cache, start: int) -> None:
    """Store the keys and values that later passes need, as copies: a slice would keep the whole pass in memory."""
    for node in nodes:
        end = start + len(node.tokens)
        if node.open:
            node.kv = [
                (layer.keys[:, :, start:end].clone(), layer.values[:, :, start:end].clone()) for layer in cache.layers
            ]
        start = end


def release(node: Node) -> None:
    """Note that a node is computed. Keys and values are dropped when all below them is computed: a pass reads those of
    the whole path, not of the parent alone.
    """
    while not node.open and node.parent is not None:
        node.kv, node = None, node.parent
        node.open -= 1


class PrefixCache:
    """Keys and values of prefixes shared by several requests, kept for later ones; the least recently used are dropped.
    """

    def __init__(self, most_tokens: int) -> None:
        self._most, self._kept = most_tokens, dict[tuple[int, ...], KeysValues]()

    def __len__(self) -> int:
        return sum(map(len, self._kept))

    @property
    def sequences(self) -> list[tuple[int, ...]]:
        """The token sequences of the prefixes."""
        return list(self._kept)

    def recall(self, sequence: tuple[int, ...], leaf: Node) -> None:
        """Give the nodes on the path to `leaf`, whose tokens are `sequence`, their stored keys and values."""
        for node in leaf.path():
            if node.tokens:
                node.kv = [(k[:, :, node.start : node.end], v[:, :, node.start : node.end]) for k, v in
                           self._kept[sequence]]  # fmt: skip

    def add(self, leaf: Node) -> None:
        """Keep the path to a node. All of its keys and values must exist."""
        path = [node for node in leaf.path() if node.tokens][::-1]
        sequence = tuple(token for node in path for token in node.tokens)
        self._kept.pop(sequence, None)
        self._kept[sequence] = [
            (torch.cat([k for k, _ in layer], 2), torch.cat([v for _, v in layer], 2))
            for layer in zip(*(node.kv for node in path), strict=True)
        ]
        while len(self) > self._most:
            del self._kept[next(iter(self._kept))]

    def forget(self) -> None:
        """Drop all prefixes."""
        self._kept.clear()
