"""Names of models and data that are meant as paths: a typo in one is no name on the hub."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from hpcjobs.assets import data_suffix

# Closer than for keys: a folder may have many names.
_CLOSE = 0.7
_ENDINGS = (
    ".txt", ".xlsx", ".yaml", ".yml", ".zip", ".tar", ".tgz", ".gz", ".zst", ".pkl", ".npy", ".db",
    ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf",
)  # fmt: skip


def is_path(name: str) -> bool:
    """Whether a name can only be a path: it has the ending of a file, starts as one, has more than one `/`, or is in a
    folder that exists.
    """
    if data_suffix(name) or name.lower().endswith(_ENDINGS):
        return True
    return name.startswith((".", "/", "~")) or name.count("/") > 1 or ("/" in name and Path(name).parent.is_dir())


def a_models_file(name: str) -> str:
    """What to say of a file that was named as a model."""
    folder = Path(name).expanduser().parent
    if (folder / "config.json").is_file():
        return f"a file: the model is its folder, {folder}"
    return "a file: a model is a folder with config.json in it"


def near_file(name: str, others: Iterable[str] = ()) -> str:
    """`" (did you mean 'x'?)"` with a name in the same folder, or one of `others` for a name without a folder."""
    path = Path(name).expanduser()
    try:
        beside = [entry.name for entry in path.parent.iterdir() if not entry.name.startswith(".")]
    except OSError:
        beside = []
    valid = [*beside, *(others if path.parent == Path() or path.is_absolute() else ())]
    near = difflib.get_close_matches(path.name, valid, n=1, cutoff=_CLOSE)
    return f" (did you mean {near[0]!r}?)" if near else ""
