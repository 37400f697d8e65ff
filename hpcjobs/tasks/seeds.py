"""Seeds that depend on the run and the sample alone."""

from __future__ import annotations

import hashlib


def sample_seed(run_seed: int, sample_id: str) -> int:
    """A sample's own seed: the same for any number of ranks and any interruptions."""
    return int.from_bytes(hashlib.sha256(f"{run_seed}\0{sample_id}".encode(errors="surrogatepass")).digest()[:7], "big")
