"""Store a model as `from_pretrained` loads it, in a type of choice."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcjobs.engines.read_back import prove_loads, prove_stored
from hpcjobs.run_folder.files import read_json

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
Tensors = dict[str, "torch.Tensor"]


def store_model(
    model: PreTrainedModel, weights: Mapping[str, torch.Tensor], folder: Path, dtype: torch.dtype | None = None
) -> Tensors:
    """Write `weights` (by their names in the model) and the model's config to `folder`; returns what its files hold.

    They are read back and compared, and loaded: a StoredError names a weight that is not as it was to be stored.
    Each weight is rounded once, to `dtype` (None: as it is). float16 cannot hold numbers beyond 65504: with such a
    weight all are stored in float32, and the log says so.
    """
    from transformers.core_model_loading import revert_weight_conversion

    once = _once(model, weights)
    if dtype is not None and (beyond := _beyond(once, dtype)):
        log.warning("%s has numbers that are infinite in %s: the model is stored in float32", beyond, dtype)
        dtype = None
    rounded = once if dtype is None else _rounded(model, once, dtype)
    stored: Tensors = revert_weight_conversion(model, rounded)
    model.save_pretrained(folder, state_dict=dict(stored), save_original_format=False)
    if dtype is not None:
        _say_dtype(folder / "config.json", str(dtype).removeprefix("torch."))
    prove_stored(folder, stored)
    prove_loads(folder, model.is_remote_code())
    return stored


def _once(model: PreTrainedModel, weights: Mapping[str, torch.Tensor]) -> Tensors:
    """The weights without those that the model does not save; tied ones once. Gathered from shards, they are apart."""
    left_out = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    left_out -= {name for name, _ in model.named_parameters()}
    left_out |= set(model._keys_to_ignore_on_save or ())
    return {name: tensor for name, tensor in weights.items() if name not in left_out}


def _beyond(weights: Mapping[str, torch.Tensor], dtype: torch.dtype) -> str | None:
    """The first weight with a finite number that is infinite in `dtype`."""
    import torch

    def largest(tensor: torch.Tensor) -> torch.Tensor:
        least, most = torch.aminmax(tensor)
        return torch.maximum(-least, most)

    floating = ((name, one) for name, one in weights.items() if one.is_floating_point() and one.numel())
    sizes = ((name, largest(one)) for name, one in floating)
    return next((name for name, size in sizes if size.isfinite() and size.to(dtype).isinf()), None)


def _rounded(model: PreTrainedModel, weights: Tensors, dtype: torch.dtype) -> Tensors:
    """The weights in `dtype`, in host memory where that is another; float32 where the model always computes in it."""
    import torch

    always = re.compile("|".join(_float32_patterns(model, dtype)) or r"(?!)")

    def one(name: str, tensor: torch.Tensor) -> torch.Tensor:
        wanted = torch.float32 if always.search(name) else dtype
        if not tensor.is_floating_point() or tensor.dtype == wanted:
            return tensor
        return tensor.to("cpu", wanted)

    return {name: one(name, tensor) for name, tensor in weights.items()}


def _float32_patterns(model: PreTrainedModel, dtype: torch.dtype) -> Iterator[str]:
    """The names of weights that transformers loads in float32 whatever it is asked for, as its globs name them."""
    import torch

    globs = set[str]()
    if dtype in (torch.float16, torch.bfloat16):
        globs |= set(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    if dtype == torch.float16:
        globs |= set(getattr(model, "_keep_in_fp32_modules", None) or ())
    return (glob.replace("*", ".*") for glob in sorted(globs))


def _say_dtype(file: Path, name: str) -> None:
    """Name the type in a config.json, where save_pretrained named that of the weights in memory."""

    def said(value: object) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: name if key == "dtype" else said(item) for key, item in value.items()}

    file.write_text(json.dumps(said(read_json(file)), indent=2, sort_keys=True) + "\n", encoding="utf-8")
