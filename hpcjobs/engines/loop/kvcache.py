"""The key-value cache of a batch, with a place for each row: rows come and go without moving others."""

from __future__ import annotations

from dataclasses import dataclass

import torch

# Buffers grow in such steps, and by this factor, so that they grow seldom.
_COLUMNS = 64
_GROWTH = 1.5


@dataclass(slots=True)
class LayerBuffers:
    """Keys and values of a layer, each [places, key/value heads, columns, head size]. A token's column is its position.
    """

    keys: torch.Tensor
    values: torch.Tensor


class KeyValueCache:
    """A key-value cache in which each row has its own place and begins at column 0, without left padding.

    Buffers are zeros, made when a layer first stores something: columns not yet written are masked, and masking works
    for finite numbers only (0 * NaN is NaN). On CPU untouched zeros use no memory.
    """

    def __init__(self, places: int) -> None:
        self.places, self._columns = places, 0
        self._layers: dict[int, LayerBuffers] = {}

    def reserve(self, columns: int) -> None:
        """Make room for rows of `columns` tokens; stored values are kept."""
        if columns <= self._columns:
            return
        wanted = max(columns, int(self._columns * _GROWTH))
        self._columns = -(-wanted // _COLUMNS) * _COLUMNS
        for layer in self._layers.values():
            layer.keys, layer.values = self._wider(layer.keys), self._wider(layer.values)

    def layer(self, number: int, keys: torch.Tensor, values: torch.Tensor) -> LayerBuffers:
        """The buffers of a layer with keys and values of these shapes, [1, heads, tokens, head size]."""
        if number not in self._layers:
            self._layers[number] = LayerBuffers(self._empty(keys), self._empty(values))
        return self._layers[number]

    @torch.inference_mode()
    def wipe(self, place: int) -> None:
        """Zero a place whose row left values that are not finite."""
        for layer in self._layers.values():
            layer.keys[place].zero_()
            layer.values[place].zero_()

    def clear(self, places: int) -> None:
        """Release all memory, and use `places` places from now on."""
        self.places, self._columns = places, 0
        self._layers.clear()

    def _empty(self, like: torch.Tensor) -> torch.Tensor:
        return like.new_zeros(self.places, like.shape[1], self._columns, like.shape[3])

    def _wider(self, old: torch.Tensor) -> torch.Tensor:
        new = old.new_zeros(self.places, old.shape[1], self._columns, old.shape[3])
        new[:, :, : old.shape[2]] = old
        return new


def copy_columns(layer: LayerBuffers, source: int, to: int, columns: int) -> None:
    """Copy the first columns of a row to another place."""
    layer.keys[to, :, :columns] = layer.keys[source, :, :columns]
    layer.values[to, :, :columns] = layer.values[source, :, :columns]
