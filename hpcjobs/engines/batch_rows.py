"""How many rows fit: from free memory, the model's bytes per token, and the expected length."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The most rows that pay off. On CPUs passes are compute-bound from there on: a token costs 1.3 times as much with 64
# rows as with 128, which double memory, latency and the cost of a crash.
MOST_ROWS = {"cpu": 64, "cuda": 256}
# The share of free memory for keys and values; the rest is for activations, logits, and other processes.
_SHARE = 0.5
# The assumed length of an unknown prompt.
_PROMPT_TOKENS = 1024
_NO_LIMIT = 1 << 60


def batch_rows(model: PreTrainedModel, new_tokens: int, context: int, local_ranks: int = 1) -> int:
    """Rows at once, at least one, for answers of at most `new_tokens` by a model with `context` positions.

    On CPU the `local_ranks` ranks of this node share its memory; a GPU belongs to one rank.
    """
    import torch

    kind = model.device.type
    free = torch.cuda.mem_get_info(model.device)[0] if kind == "cuda" else host_memory() // local_ranks
    row = token_bytes(model) * expected_tokens(new_tokens, context)
    return max(1, min(MOST_ROWS.get(kind, MOST_ROWS["cpu"]), int(free * _SHARE) // row))


def expected_tokens(new_tokens: int, context: int) -> int:
    """The expected length of a row in tokens: a prompt of unknown length and its answer."""
    return min(context, _PROMPT_TOKENS + new_tokens)


def token_bytes(model: PreTrainedModel) -> int:
    """Bytes of keys and values per token, over all layers, in the model's dtype; an estimate for unusual models."""
    config = model.config.get_text_config(decoder=True)
    heads = getattr(config, "num_attention_heads", 1)
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    return int(2 * config.num_hidden_layers * kept * size * model.dtype.itemsize)


def host_memory(root: Path = Path("/")) -> int:
    """Bytes that this process can still use: the host's available memory within the limits of its cgroups.

    Both versions of cgroups: https://docs.kernel.org/admin-guide/cgroup-v2.html.
    """
    meminfo = _fields(root / "proc/meminfo")
    available = int(meminfo.get("MemAvailable", "0 kB").split()[0]) * 1024 or _NO_LIMIT
    return min([available, *(_left(folder) for folder in _cgroups(root))])


def _cgroups(root: Path) -> list[Path]:
    """This process's memory cgroup and those above it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers in ("", "memory"):
            top = root / "sys/fs/cgroup" / controllers
            own = top / name.lstrip("/")
            folders += [own, *(parent for parent in own.parents if parent.is_relative_to(top))]
    return folders


def _left(folder: Path) -> int:
    """The memory left in a cgroup; reclaimable page cache counts as free."""
    for most, used, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            limit, taken = (folder / most).read_text().strip(), int((folder / used).read_text())
        except (OSError, ValueError):
            continue
        if limit != "max" and int(limit) < _NO_LIMIT:
            return max(0, int(limit) - taken + int(_fields(folder / "memory.stat").get(cache, "0")))
    return _NO_LIMIT


def _fields(path: Path) -> Mapping[str, str]:
    """`name value` or `name: value` lines of a kernel's file."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    return {name.rstrip(":"): value.strip() for name, _, value in (line.partition(" ") for line in lines)}
