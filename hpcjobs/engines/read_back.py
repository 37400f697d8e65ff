"""Proof that a model folder holds what was to be stored: read back from the disk, byte by byte, and loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcjobs.config import WeightsConfig
from hpcjobs.engines.weight_files import TORCH_NAMES, StoredTensor, stored_tensors
from hpcjobs.engines.weights import weight_problems
from hpcjobs.errors import ConfigError, HpcJobsError

if TYPE_CHECKING:
    import torch

# Bytes of a tensor that are compared at once.
_BLOCK = 1 << 26


class StoredError(HpcJobsError):
    """A stored model that is not the one that was to be stored."""


def prove_stored(folder: Path, tensors: Mapping[str, torch.Tensor], file: str | None = None) -> None:
    """Raise a StoredError that names the first of `tensors` that the folder's files do not hold exactly.

    `file` is the one to read; None: those of a model. Names, types, shapes and bytes are compared, one tensor at a
    time. Of weights that share their memory, one stands for all.
    """
    for path in folder.iterdir():
        if path.is_file():
            _forget(path)
    try:
        found = stored_tensors(folder, file)
    except ConfigError as error:
        raise StoredError(f"what was stored cannot be read back: {error}") from None
    if unknown := sorted(found.keys() - tensors.keys()):
        raise StoredError(f"{found[unknown[0]].file} has {unknown[0]}, which was not to be stored")
    places = {_place(tensors[name]) for name in found}
    for name, tensor in tensors.items():
        if name not in found and _place(tensor) in places:
            continue
        if wrong := _difference(found.get(name), tensor):
            raise StoredError(f"{folder} is not what was to be stored: {name} {wrong}")


def prove_loads(folder: Path, trust_remote_code: bool = False) -> None:
    """Raise a StoredError if transformers misses weights in the folder, or finds some that it does not use.

    It reads names and shapes alone, where the model can be made without memory.
    """
    try:
        report = _loaded(folder, "meta", trust_remote_code)
    except Exception:  # code of a model that needs real tensors raises anything
        try:
            report = _loaded(folder, "cpu", trust_remote_code)
        except Exception as error:
            raise StoredError(f"{folder} was stored, and transformers cannot load it: {error}") from error
    if problems := weight_problems(report, WeightsConfig()):
        raise StoredError(f"{folder} was stored, and does not load whole: of its weights, {'; '.join(problems)}")


def _loaded(folder: Path, device: str, trust_remote_code: bool) -> dict[str, Any]:
    """What transformers reports of loading the folder."""
    import transformers

    _, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", device_map=device, use_safetensors=True, ignore_mismatched_sizes=True,
        output_loading_info=True, trust_remote_code=trust_remote_code,
    )  # fmt: skip
    told: dict[str, Any] = report
    return told


def _forget(path: Path) -> None:
    """Write a file through to the disk and drop it from the page cache, so that it is the disk that is read."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _place(tensor: torch.Tensor) -> tuple[int, tuple[int, ...], str]:
    return tensor.data_ptr(), tuple(tensor.shape), str(tensor.device)


def _difference(stored: StoredTensor | None, tensor: torch.Tensor) -> str | None:
    """What differs between a stored tensor and the one that was to be stored; None if nothing does."""
    import torch

    if stored is None:
        return "is not there"
    if stored.shape != tuple(tensor.shape):
        return f"is {list(stored.shape)}, not {list(tensor.shape)}"
    wanted = str(tensor.dtype).removeprefix("torch.")
    found = TORCH_NAMES.get(stored.dtype, stored.dtype)
    if wanted in TORCH_NAMES.values() and found != wanted:
        return f"is {found}, not {wanted}"
    content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    with stored.file.open("rb") as file:
        file.seek(stored.begin)
        for begin in range(0, len(content), _BLOCK):
            block = content[begin : begin + _BLOCK]
            if file.read(len(block)) != block.tobytes():
                return f"in {stored.file.name} has other values"
    return None if stored.end - stored.begin == len(content) else f"has {stored.end - stored.begin} bytes"
