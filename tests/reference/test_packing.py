"""Packed rows of models of many families: each token's loss is that of its sample alone, by transformers itself.

The families that are refused are named.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hpcjobs.training.data.collate import IGNORED, collate
from hpcjobs.training.loss import Loss
from hpcjobs.training.packed_rows import PackingError, packed_by
from tests.reference.families import BORDER, FAMILIES, VOCABULARY, WINDOW, family

pytestmark = pytest.mark.model
# Around each window and border, packed in two rows; the ids are drawn.
LENGTHS = (5, WINDOW, WINDOW + 1, 3, BORDER - 1, 2, BORDER + 1, 60)
UNITS = ((0, 4, 1, 5), (7, 3, 2, 6))
# States, distances or positions run through the whole row, or depend on its length: trained with train.packing: false.
REFUSED = {
    "bamba", "bloom", "falcon, alibi", "falcon_h1", "falcon_mamba", "granitemoehybrid", "jamba", "lfm2", "lfm2_moe",
    "llama, dynamic rope", "mamba", "mamba2", "minimax", "nemotron_h", "openai-gpt", "phi3, longrope", "qwen3_5",
    "qwen3_next", "recurrent_gemma", "rwkv", "zamba2",
}  # fmt: skip


class Samples:
    """Samples of which everything is learned."""

    def __init__(self) -> None:
        draw = random.Random(5)
        self.lengths: npt.NDArray[np.int64] = np.array(LENGTHS, np.int64)
        self.ids = [np.array([draw.randrange(4, VOCABULARY) for _ in range(n)], np.int32) for n in LENGTHS]

    def sample(self, number: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        return self.ids[number], np.ones(LENGTHS[number], bool)


def alone(name: str, samples: Samples) -> list[list[float]]:
    """Each sample's losses by a model that sees nothing else."""
    import torch

    found = []
    for ids in samples.ids:
        one = torch.from_numpy(ids.astype(np.int64))
        with torch.no_grad():
            logits = family(name)(input_ids=one[None], use_cache=False).logits[0, :-1].float()
        found.append(torch.nn.functional.cross_entropy(logits, one[1:], reduction="none").tolist())
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_a_packed_sample_has_the_losses_that_it_has_alone(name: str) -> None:
    import torch

    torch.set_num_threads(1)
    model: Any = family(name)
    try:
        way = packed_by(model, sum(LENGTHS))
    except PackingError:
        assert name in REFUSED
        return
    assert name not in REFUSED
    samples, right = Samples(), alone(name, Samples())
    loss = Loss(model, torch.device("cpu"), way)
    batch = collate(UNITS, samples, 3, packed=True)
    with torch.no_grad():
        logits = loss.logits(model, batch).float()
    learned = batch.labels != IGNORED
    losses = torch.nn.functional.cross_entropy(logits[learned], batch.labels[learned], reduction="none").tolist()
    expected = [value for unit in UNITS for number in unit for value in right[number]]
    assert losses == pytest.approx(expected, rel=1e-4, abs=1e-4)
