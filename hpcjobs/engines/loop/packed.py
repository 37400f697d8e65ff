"""A model's forward pass over the new tokens of many rows at once, without padding.

All new tokens are one input row, [1, tokens]: one token of each row that is decoding, then pieces of prompts. Weights
are applied to all of them together; a custom attention reads each row's own keys and values (transformers'
AttentionInterface: https://huggingface.co/docs/transformers/attention_interface).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention

from hpcjobs.engines.loop.kvcache import KeyValueCache, LayerBuffers, copy_columns

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NAME = "hpcjobs_packed"
# The cost of a call of the attention kernel, in columns that could be read in that time.
_CALL_COLUMNS = 600
# Arguments that some models pass to their attention, and that are not supported here.
_UNKNOWN = ("softcap", "s_aux", "position_bias", "sliding_window", "head_mask")


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """New tokens of one row, to be stored at `place` from column `start`.

    `copied` columns before them are first copied from the place `source`. `last`: return the logits of its last token.
    """

    place: int
    start: int
    tokens: Sequence[int]
    last: bool = True
    source: int = -1
    copied: int = 0

    @property
    def end(self) -> int:
        """The column after the last token."""
        return self.start + len(self.tokens)


@dataclass(frozen=True, slots=True)
class _Range:
    """Neighbouring places that are read in one call, `columns` columns each; its tokens are `first` to `end`."""

    low: int
    high: int
    columns: int
    first: int
    end: int


@dataclass(kw_only=True)
class _Step:
    """The inputs of attention in one forward pass; tensors are made once per device."""

    cache: KeyValueCache
    singles: Sequence[Piece]
    pieces: Sequence[Piece]
    copies: Sequence[Piece]
    ranges: Sequence[_Range]
    _made: dict[Any, Any] = field(default_factory=dict)

    def index(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Places and columns of the single tokens."""
        if device not in self._made:
            pairs = [(piece.place, piece.start) for piece in self.singles]
            self._made[device] = torch.tensor(pairs, device=device).reshape(-1, 2).unbind(1)
        return self._made[device]  # type: ignore[no-any-return]

    def range_mask(self, each: _Range, device: torch.device) -> torch.Tensor | None:
        """[places, 1, 1, columns]: what each row has; None where that is everything."""
        if (device, each) not in self._made:
            ends = [1] * (each.high - each.low)  # a place that no row asks from reads anything
            for piece in self.singles[each.first : each.end]:
                ends[piece.place - each.low] = piece.end
            mask = None
            if min(ends) < each.columns:
                columns = torch.arange(each.columns, device=device)
                mask = (columns < torch.tensor(ends, device=device)[:, None])[:, None, None]
            self._made[device, each] = mask
        return self._made[device, each]  # type: ignore[no-any-return]

    def causal_mask(self, piece: Piece, groups: int, device: torch.device) -> torch.Tensor:
        """[groups * tokens, columns]: each token sees the columns up to its own."""
        key = (device, piece.start, len(piece.tokens), groups)
        if key not in self._made:
            mask = torch.ones(len(piece.tokens), piece.end, dtype=torch.bool, device=device)
            self._made[key] = mask.tril(piece.start).repeat(groups, 1)
        return self._made[key]  # type: ignore[no-any-return]


class PackedModel:
    """A causal language model with a KeyValueCache, run on pieces of rows."""

    def __init__(self, model: PreTrainedModel, places: int) -> None:
        import transformers

        transformers.AttentionInterface.register(_NAME, _attend)
        self._model, self.cache = model, KeyValueCache(places)
        configs = {id(found.config): found.config for found in model.modules() if hasattr(found, "config")}
        self._configs = [config for config in configs.values() if hasattr(config, "_attn_implementation_internal")]

    @torch.inference_mode()
    def logits(self, pieces: Sequence[Piece]) -> tuple[list[int], torch.Tensor]:
        """Run and store the pieces; returns the numbers of those with `last`, and logits [numbers, vocabulary].

        Running a piece again gives the same result, so a failed pass may be repeated in parts.
        """
        order = sorted(range(len(pieces)), key=lambda n: (len(pieces[n].tokens) > 1, pieces[n].place))
        sorted_pieces = [pieces[n] for n in order]
        singles = [piece for piece in sorted_pieces if len(piece.tokens) == 1]
        self.cache.reserve(max(piece.end for piece in pieces))
        copies = [piece for piece in pieces if piece.copied]
        step = _Step(
            cache=self.cache,
            singles=singles,
            pieces=sorted_pieces[len(singles) :],
            copies=copies,
            ranges=list(_ranges(singles)),
        )
        ends, end = [], 0
        for piece in sorted_pieces:
            end += len(piece.tokens)
            ends.append(end - 1)
        device = self._model.get_input_embeddings().weight.device
        ids = torch.tensor([token for piece in sorted_pieces for token in piece.tokens], device=device)
        positions = [column for piece in sorted_pieces for column in range(piece.start, piece.end)]
        wanted = [(n, end) for n, piece, end in zip(order, sorted_pieces, ends, strict=True) if piece.last]
        keep = torch.tensor([end for _, end in wanted] or [0], device=device)
        with self._attending(step):
            output = self._model(
                input_ids=ids[None], position_ids=torch.tensor([positions], device=device), use_cache=False,
                logits_to_keep=keep,
            )  # fmt: skip
        return [n for n, _ in wanted], output.logits[0][: len(wanted)]

    @contextlib.contextmanager
    def _attending(self, step: _Step) -> Iterator[None]:
        """Within the block, the model uses the packed attention."""
        global _current
        before = [config._attn_implementation_internal for config in self._configs]
        _current = step
        try:
            for config in self._configs:
                config._attn_implementation_internal = _NAME
            yield
        finally:
            _current = None
            for config, name in zip(self._configs, before, strict=True):
                config._attn_implementation_internal = name


# AttentionInterface has no argument that all models would pass on to the function.
_current: _Step | None = None


def _ranges(singles: Sequence[Piece]) -> Iterator[_Range]:
    """Group neighbouring places into one call if reading unused columns costs less than another call."""
    first = 0
    for number, piece in enumerate(singles):
        if number == first:
            low, columns = piece.place, piece.end
            continue
        wider = max(columns, piece.end)
        more = (piece.place + 1 - low) * wider - (singles[number - 1].place + 1 - low) * columns
        if more - piece.end > _CALL_COLUMNS:
            yield _Range(low, singles[number - 1].place + 1, columns, first, number)
            first, low, columns = number, piece.place, piece.end
        else:
            columns = wider
    if singles:
        yield _Range(low, singles[-1].place + 1, columns, first, len(singles))


class _Attention(Protocol):
    """A layer's attention in transformers."""

    layer_idx: int


def _attend(
    module: _Attention, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: object,
    dropout: float = 0.0, scaling: float | None = None, **more: object,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Attention of all rows; `query` [1, heads, tokens, size] gives [1, tokens, heads, size]."""
    step = _current
    strange = [name for name in _UNKNOWN if more.get(name) is not None]
    if step is None or strange or key.shape[0] != 1:
        raise NotImplementedError(f"attention with {', '.join(strange) or 'another batch'}")
    layer = step.cache.layer(module.layer_idx, key, value)
    _store(step, layer, key, value)
    heads, tokens = key.shape[1], query.shape[2]
    groups = query.shape[1] // heads
    grouped = query[0].view(heads, groups, tokens, -1)  # query heads that share keys are rows of one product
    output = query.new_empty(tokens, heads, groups, value.shape[3])
    queries = grouped.permute(2, 0, 1, 3)
    for each in step.ranges:
        output[each.first : each.end] = _attend_range(step, layer, each, queries, scaling)
    done = len(step.singles)
    for piece in step.pieces:
        length = len(piece.tokens)
        query_rows = grouped[:, :, done : done + length].reshape(1, heads, groups * length, -1)
        found = scaled_dot_product_attention(
            query_rows, layer.keys[piece.place, None, :, : piece.end], layer.values[piece.place, None, :, : piece.end],
            attn_mask=step.causal_mask(piece, groups, query.device), scale=scaling,
        )  # fmt: skip
        output[done : done + length] = found[0].view(heads, groups, length, -1).permute(2, 0, 1, 3)
        done += length
    return output.view(1, tokens, heads * groups, -1), None


def _store(step: _Step, layer: LayerBuffers, key: torch.Tensor, value: torch.Tensor) -> None:
    count = len(step.singles)
    if count:
        places, columns = step.index(key.device)
        layer.keys[places, :, columns] = key[0, :, :count].transpose(0, 1)
        layer.values[places, :, columns] = value[0, :, :count].transpose(0, 1)
    for piece in step.pieces:
        length = len(piece.tokens)
        layer.keys[piece.place, :, piece.start : piece.end] = key[0, :, count : count + length]
        layer.values[piece.place, :, piece.start : piece.end] = value[0, :, count : count + length]
        count += length
    for piece in step.copies:  # in the order they were given: one may copy what another has just stored
        copy_columns(layer, piece.source, piece.place, piece.copied)


def _attend_range(
    step: _Step, layer: LayerBuffers, each: _Range, queries: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    query_rows = queries[each.first : each.end]
    dense = each.high - each.low == each.end - each.first
    if not dense:
        inside = step.index(queries.device)[0][each.first : each.end] - each.low
        query_rows = queries.new_zeros(each.high - each.low, *queries.shape[1:])
        query_rows[inside] = queries[each.first : each.end]
    places = slice(each.low, each.high)
    found = scaled_dot_product_attention(
        query_rows, layer.keys[places, :, : each.columns], layer.values[places, :, : each.columns],
        attn_mask=step.range_mask(each, queries.device), scale=scaling,
    )  # fmt: skip
    return found if dense else found[inside]
