"""Seeds that depend only on the run and the sample."""

from __future__ import annotations

import hashlib


def sample_seed(run_seed: int, sample_id: str) -> int:
    """The seed of a sample, the same for any number of ranks and any interruptions."""
    return int.from_bytes(hashlib.sha256(f"{run_seed}\0{sample_id}".encode(errors="surrogatepass")).digest()[:7], "big")
