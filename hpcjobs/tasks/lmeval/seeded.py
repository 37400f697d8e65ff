"""simple_evaluate's seeds, so that a task draws the same rows, options and examples."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np

_RANDOM_SEED = 0
# NumPy's, and that of few-shot examples.
OTHER_SEED = 1234


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    """Within the block, Python's and NumPy's global generators are seeded as by simple_evaluate; then restored."""
    python, arrays = random.getstate(), np.random.get_state()
    seed()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)


def seed() -> None:
    """Seed Python's and NumPy's global generators as simple_evaluate does."""
    random.seed(_RANDOM_SEED)
    np.random.seed(OTHER_SEED)
