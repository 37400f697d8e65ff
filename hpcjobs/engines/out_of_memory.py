"""Out of memory: what every engine takes for it, and makes room after."""

from __future__ import annotations

import torch


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out, on a GPU or on the host, where torch raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def free_gpu_memory() -> None:
    """Give memory that torch keeps for later back to the GPU."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
