"""The type of a model's own weights, by its config.json and the headers of its files; without torch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from hpcjobs.config import Config
from hpcjobs.engines.weight_files import TORCH_NAMES, stored_tensors
from hpcjobs.errors import ConfigError
from hpcjobs.run_folder.files import read_json

# The types that a model can be stored in.
_TYPES = ("float32", "bfloat16", "float16")


def save_dtype(config: Config, folder: Path | None) -> str | None:
    """The type in which a training's model is stored; None if that is the base's own, and the base is not here yet.

    `folder` is that of the base. Random weights have no base: float32, as they are trained.
    """
    if config.train.save_dtype != "auto":
        return config.train.save_dtype
    if config.train.init == "random":
        return "float32"
    return own_dtype(folder) if folder else None


def own_dtype(folder: Path) -> str:
    """What transformers takes for `dtype="auto"`: the type that config.json names, else that of most of the weights.

    float32 if neither is one of float32, bfloat16 and float16.
    """
    config = read_json(folder / "config.json")
    for part in (config, config.get("text_config") or {}):
        said = str(part.get("dtype") or part.get("torch_dtype")).removeprefix("torch.")
        if said in _TYPES:
            return said
    sizes: Counter[str] = Counter()
    try:
        for tensor in stored_tensors(folder, config.get("transformers_weights")).values():
            name = TORCH_NAMES.get(tensor.dtype, "")
            sizes[name if name in _TYPES else ""] += tensor.end - tensor.begin
    except ConfigError:  # its weights are refused elsewhere, by name
        return "float32"
    return max(sizes, key=lambda name: sizes[name], default="") or "float32"
