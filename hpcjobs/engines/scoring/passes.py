"""Forward passes over a prefix tree: many branches packed into one sequence, each of which sees its own path alone."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
import transformers

from hpcjobs.engines.prefix import Node

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedModel

# Keys and values of some tokens, a pair a layer, each [1, heads, tokens, head size].
KeysValues = list[tuple[torch.Tensor, torch.Tensor]]
# What the logits of one pass may take, in bytes, as float32.
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
    """How many tokens a pass has at most: enough to keep the matrix units busy, few enough for memory.

    On CPUs the cost a token is flat from 256 to 512 tokens (measured: the gain of larger products is lost to attention
    between branches that the mask hides).
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
        """Logits [len(wanted), vocabulary] of the tokens at places `wanted` of the pass; sets the nodes' `kv`.

        The keys and values of every node's path must be there, or in this very pass.
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
    """The nodes outside the pass that its nodes see, each once."""
    here = {id(node) for node in nodes}
    found: dict[int, Node] = {}
    for node in nodes:
        for one in node.path():
            if one.tokens and id(one) not in here:
                found.setdefault(id(one), one)
    return list(found.values())


def _mask(before: Sequence[Node], nodes: Sequence[Node], dtype: torch.dtype) -> torch.Tensor:
    """[1, 1, tokens of the pass, tokens seen]: 0 where a token sees another, else the least number of `dtype`.

    A number added to the scores is quicker on CPUs than a boolean mask.
    """
    seen = [*before, *nodes]
    number = {id(node): place for place, node in enumerate(seen)}
    paths = torch.zeros(len(nodes), len(seen), dtype=torch.bool)
    for row, node in enumerate(nodes):
        paths[row, [number[id(one)] for one in node.path() if one.tokens]] = True
    sizes = torch.tensor([len(node.tokens) for node in seen])
    own = sizes[len(before) :]
    columns, rows = torch.repeat_interleave(sizes), torch.repeat_interleave(own)
    place = torch.cat([torch.arange(node.start, node.end) for node in seen])
    visible = paths[rows][:, columns] & (place[None, :] <= place[len(place) - len(rows) :, None])
    mask = torch.zeros(visible.shape, dtype=dtype).masked_fill_(~visible, torch.finfo(dtype).min)
    return mask[None, None]


def _store(nodes: Sequence[Node], cache: Cache, start: int) -> None:
    """Keep what later passes will read; a slice would keep the whole pass in memory, so it is copied."""
    for node in nodes:
        end = start + len(node.tokens)
        if node.open:
            node.kv = [
                (layer.keys[:, :, start:end].clone(), layer.values[:, :, start:end].clone()) for layer in cache.layers
            ]
        start = end


def release(node: Node) -> None:
    """Say that a node is computed: where it was the last child, what its parent holds is not needed any more."""
    parent = node.parent
    if parent is not None:
        parent.open -= 1
        if not parent.open:
            parent.kv = None


class Heads:
    """Keys and values of beginnings that several requests shared, kept for later ones; the longest unused go first."""

    def __init__(self, most_tokens: int) -> None:
        self._most, self._held = most_tokens, dict[tuple[int, ...], KeysValues]()

    def __len__(self) -> int:
        return sum(map(len, self._held))

    @property
    def sequences(self) -> list[tuple[int, ...]]:
        return list(self._held)

    def recall(self, sequence: tuple[int, ...], leaf: Node) -> None:
        """Give the nodes on the path to `leaf`, whose tokens are `sequence`, what is held of them."""
        for node in leaf.path():
            if node.tokens:
                node.kv = [(k[:, :, node.start : node.end], v[:, :, node.start : node.end]) for k, v in
                           self._held[sequence]]  # fmt: skip

    def add(self, leaf: Node) -> None:
        """Keep the path to a node, all of whose keys and values are there."""
        path = [node for node in leaf.path() if node.tokens][::-1]
        sequence = tuple(token for node in path for token in node.tokens)
        self._held.pop(sequence, None)
        self._held[sequence] = [
            (torch.cat([k for k, _ in layer], 2), torch.cat([v for _, v in layer], 2))
            for layer in zip(*(node.kv for node in path), strict=True)
        ]
        while len(self) > self._most:
            del self._held[next(iter(self._held))]

    def forget(self) -> None:
        self._held.clear()
