"""Rows of one batch without packing: each sample's loss is that of the sample alone, by transformers itself.

HPCJOBS_FAMILIES=whole takes all families, in half a minute; the short form has one of each kind.
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hpcjobs.assets import ASSETS
from hpcjobs.engines.lengths import position_border
from hpcjobs.training.batches import BatchPlan
from hpcjobs.training.data.collate import IGNORED, collate
from hpcjobs.training.data.order import BatchOrder, Ordering, Share
from hpcjobs.training.data.tokens import TokenFile
from hpcjobs.training.loss import Loss
from hpcjobs.training.validation import Validation
from tests.reference.families import BORDER, FAMILIES, SHORT, VOCABULARY, WINDOW, family
from tests.trainings import curve_of, plan_training, run_training

pytestmark = pytest.mark.model
NAMES = FAMILIES if os.environ.get("HPCJOBS_FAMILIES", "short") != "short" else SHORT
LENGTHS = (5, WINDOW, WINDOW + 1, 3, BORDER - 1, 2, BORDER, BORDER + 1, 60, 59)


class Samples:
    """Samples of which everything is learned, none longer than `most`."""

    def __init__(self, most: int) -> None:
        draw = random.Random(5)
        lengths = [length for length in LENGTHS if length <= most]
        self.lengths: npt.NDArray[np.int64] = np.array(lengths, np.int64)
        self.ids = [np.array([draw.randrange(4, VOCABULARY) for _ in range(n)], np.int32) for n in lengths]

    def __len__(self) -> int:
        return len(self.ids)

    def sample(self, number: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        return self.ids[number], np.ones(len(self.ids[number]), bool)


def alone(name: str, samples: Samples) -> list[list[float]]:
    """Each sample's losses by a model that sees nothing else."""
    import torch

    found, model = [], family(name)
    for ids in samples.ids:
        one = torch.from_numpy(ids.astype(np.int64))
        with torch.no_grad():
            logits = model(input_ids=one[None], use_cache=False).logits[0, :-1].float()
        found.append(torch.nn.functional.cross_entropy(logits, one[1:], reduction="none").tolist())
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_padded_sample_has_the_losses_that_it_has_alone(name: str) -> None:
    """In the micro batches of a step, on one rank and on two, and when validating."""
    import torch

    torch.set_num_threads(1)
    model: Any = family(name)
    samples = Samples(BORDER if name == "llama, dynamic rope" else 60)  # nothing is longer than the positions
    right, border, count = alone(name, samples), position_border(model), len(samples)
    assert (border == BORDER) == ("longrope" in name)
    loss, seen = Loss(model, torch.device("cpu")), 0
    order = BatchOrder(samples.lengths, Ordering(0, count, border=border))
    for share in (Share(0, 1, count), Share(0, 2, count), Share(1, 2, count)):
        for part in order.share(0, share):
            batch = collate(part, samples, 3)
            with torch.no_grad():
                logits = loss.logits(model, batch).float()
            for row, [number] in enumerate(part):
                labels = batch.labels[row]
                losses = torch.nn.functional.cross_entropy(logits[row], labels, reduction="none")[labels != IGNORED]
                assert losses.tolist() == pytest.approx(right[number], rel=1e-4, abs=1e-4)
                seen += 1
    assert seen == 2 * count

    class State:
        plain, sharded = model, False

    tokens: Any = samples
    state: Any = State()
    found = Validation(tokens, BatchPlan(1, count, 1), 0, 3, border).loss(loss, state, lambda sums: list(sums))
    assert found == pytest.approx(float(np.mean([one for each in right for one in each])), rel=1e-4)


@pytest.mark.parametrize(("ranks", "how"), [(1, {}), (2, {}), (2, {"fsdp": {"enabled": True}})])
def test_a_step_of_a_longrope_model_is_that_of_its_samples_one_at_a_time(
    tmp_path: Path, ranks: int, how: dict[str, Any]
) -> None:
    """Short samples beside some that are longer than the original context: loss, gradient norm, validation loss."""
    model: Any = family("phi3, longrope")
    shutil.copytree(ASSETS / "tiny", tmp_path / "model")
    model.save_pretrained(tmp_path / "model")
    rows = [{"question": f"Add {n}", "answer": "12 " * (12 if n in (2, 5, 7) else 1)} for n in range(12)]
    paths = plan_training(
        tmp_path / "run", ranks, rows, model=str(tmp_path / "model"), init="pretrained", max_steps=1, global_batch=10,
        micro_batch=10 // ranks, validation_fraction=0.2, eval_every=1, clip_norm=None,
        **how,
    )  # fmt: skip
    run_training(paths, ranks)
    [record] = curve_of(paths)
    train = TokenFile(paths.tokens)
    assert max(train.lengths) > BORDER > min(train.lengths)
    assert sum(train.lengths > BORDER) % 2, "no rank has an empty micro batch"
    loss, norm = by_hand(model, train)
    assert record.loss == pytest.approx(loss, rel=1e-5)
    assert record.grad_norm == pytest.approx(norm, rel=1e-4)
    assert record.tokens == sum(train.lengths)


def by_hand(model: Any, samples: TokenFile) -> tuple[float, float]:
    """The mean loss of the learned tokens, by transformers with one sample at a time, and the norm of its gradient."""
    import torch

    model.zero_grad()
    targets = sum(int(samples.sample(number)[1].sum()) for number in range(len(samples)))
    total = 0.0
    for number in range(len(samples)):
        ids, learned = (torch.from_numpy(np.array(part)) for part in samples.sample(number))
        labels = torch.where(learned, ids.long(), -100)
        logits = model(input_ids=ids.long()[None], use_cache=False).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, labels[1:], reduction="sum") / targets
        torch.autograd.backward(loss)
        total += float(loss.detach())
    norms = [weight.grad.norm() for weight in model.parameters() if weight.grad is not None]
    return total, float(torch.stack(norms).norm())
