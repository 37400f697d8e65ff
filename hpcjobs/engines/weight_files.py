"""The weights of a model folder by the headers of its files: names, shapes and places, without torch.

The format is that of safetensors: 8 bytes with the length of a JSON header (little-endian), the header, the data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcjobs.errors import ConfigError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
# safetensors' names of types, and torch's.
TORCH_NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_LENGTH = 8
_LFS = b"version https://git-lfs"
# safetensors refuses longer headers.
_LONGEST = 100_000_000


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file: its type as safetensors names it, its shape, and where its bytes lie."""

    dtype: str
    shape: tuple[int, ...]
    file: Path
    begin: int
    end: int

    def content(self) -> bytes:
        """Its bytes."""
        with self.file.open("rb") as file:
            file.seek(self.begin)
            return file.read(self.end - self.begin)


def stored_tensors(folder: Path, explicit: str | None = None) -> dict[str, StoredTensor]:
    """The tensors that transformers would find in a model folder: of one file, or of the shards that an index names.

    `explicit` is the file or index that config.json names. Raises a ConfigError for a file that is not there, is cut
    off or no safetensors file, and for a tensor of the index that no shard has.
    """
    name = explicit or (SINGLE if (folder / SINGLE).exists() else INDEX)
    if not (folder / name).exists():
        raise ConfigError(_no_weights(folder, name))
    if not name.endswith(".json"):
        return read_header(folder / name)
    places = _index(folder / name)
    absent = {shard for shard in places.values() if not (folder / shard).is_file()}
    if absent:
        shard, tensor = min((shard, tensor) for tensor, shard in places.items() if shard in absent)
        raise ConfigError(
            f"{folder / name} names {len(absent)} shards that are not there: {shard}, which has {tensor}, is the first"
        )
    found = _merged(read_header(folder / shard) for shard in sorted(set(places.values())))
    if lost := sorted(places.keys() - found.keys()):
        raise ConfigError(f"{folder / name} names {len(lost)} tensors that no shard has: {', '.join(lost[:5])}")
    return found


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file. Raises a ConfigError if it is cut off, or none."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(_LENGTH)
        length = int.from_bytes(start, "little")
        if (start + opened.read(len(_LFS))).startswith(_LFS):
            raise ConfigError(f"{file} is a pointer of Git LFS, not the weights: run `git lfs pull` in {file.parent}")
        if size < _LENGTH or (_LENGTH + length > size and length <= _LONGEST):
            raise ConfigError(f"{file} is cut off: {size} bytes, less than its header needs; get it again")
        opened.seek(_LENGTH)
        header = opened.read(length if length <= _LONGEST else 0)
    try:
        values = json.loads(header)
        tensors = {
            name: _stored(file, _LENGTH + length, value) for name, value in values.items() if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(f"{file} is no safetensors file: its header is no JSON of tensors; get it again") from None
    _check_size(file, tensors, _LENGTH + length, size)
    return tensors


def _stored(file: Path, base: int, value: Mapping[str, Any]) -> StoredTensor:
    begin, end = value["data_offsets"]
    return StoredTensor(str(value["dtype"]), tuple(map(int, value["shape"])), file, base + int(begin), base + int(end))


def _check_size(file: Path, tensors: Mapping[str, StoredTensor], base: int, size: int) -> None:
    """Raise a ConfigError unless the file ends where its last tensor does, as safetensors itself requires."""
    beyond = sorted((tensor.begin, name) for name, tensor in tensors.items() if tensor.end > size)
    needed = max((tensor.end for tensor in tensors.values()), default=base)
    if beyond:
        raise ConfigError(
            f"{file} is cut off: {size} of {needed} bytes; {beyond[0][1]} is the first of {len(beyond)} tensors that "
            "are not whole; get the file again"
        )
    if needed < size:
        raise ConfigError(f"{file} has {size} bytes, and its header describes {needed}: it is damaged; get it again")


def _index(file: Path) -> dict[str, str]:
    """The shard of each tensor."""
    try:
        places = json.loads(file.read_bytes())["weight_map"]
        return {str(name): str(shard) for name, shard in places.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(f"{file} is no index of shards: it has no weight_map; get it again") from None


def _merged(shards: Iterable[dict[str, StoredTensor]]) -> dict[str, StoredTensor]:
    """The tensors of all shards. Raises a ConfigError for a name with different values in two of them."""
    found: dict[str, StoredTensor] = {}
    for shard in shards:
        for name in shard.keys() & found.keys():
            one, other = found[name], shard[name]
            if (one.dtype, one.shape) != (other.dtype, other.shape) or one.content() != other.content():
                raise ConfigError(f"{name} stands in {one.file} and, with other values, in {other.file.name}")
        found |= shard
    return found


def _no_weights(folder: Path, name: str) -> str:
    others = sorted(path.name for path in folder.glob("*") if path.suffix in (".bin", ".pt", ".pth", ".safetensors"))
    there = f"; it has {', '.join(others[:4])}" if others else ""
    pickled = any(not one.endswith(".safetensors") for one in others)
    hint = ": save it again with save_pretrained, which writes safetensors" if pickled else ""
    wanted = name if name != INDEX else f"{SINGLE} and no {INDEX}"
    return f"model folder {folder} has no {wanted}{there}; weights are loaded from safetensors files only{hint}"
