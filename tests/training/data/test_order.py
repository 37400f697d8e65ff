"""The order: the same for any number of ranks, every sample once an epoch, rows full and never too long."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcjobs.training.data.order import BatchOrder, Ordering, Share

LENGTHS = st.lists(st.integers(2, 60), min_size=1, max_size=80).map(lambda found: np.array(found, np.int64))


@given(LENGTHS, st.integers(1, 16), st.booleans(), st.sampled_from([None, 60, 128]), st.integers(0, 3))
def test_every_sample_once_an_epoch(
    lengths: np.ndarray[tuple[int], np.dtype[np.int64]], batch: int, by_length: bool, pack: int | None, seed: int
) -> None:
    order = BatchOrder(lengths, Ordering(seed, batch, pack, by_length))
    assert sorted(sample for unit in order.units for sample in unit) == list(range(len(lengths)))
    epochs = batch  # so many epochs are a whole number of batches
    seen = Counter(sample for step in range(order.steps(epochs)) for sample in order.samples(step))
    assert seen == Counter(dict.fromkeys(range(len(lengths)), epochs))
    assert order.epoch(order.steps(epochs)) == pytest.approx(epochs)


@given(LENGTHS, st.sampled_from([1, 2, 3, 4, 6, 12]), st.integers(1, 12), st.booleans())
def test_the_ranks_share_a_batch_without_rest(
    lengths: np.ndarray[tuple[int], np.dtype[np.int64]], world: int, micro: int, by_length: bool
) -> None:
    order = BatchOrder(lengths, Ordering(5, 12, None, by_length))
    for step in range(3):
        shares = [order.share(step, Share(rank, world, micro)) for rank in range(world)]
        assert {tuple(len(part) for part in share) for share in shares} == {tuple(len(part) for part in shares[0])}
        assert max(len(part) for part in shares[0]) <= micro
        together = [sample for share in shares for part in share for unit in part for sample in unit]
        assert sorted(together) == sorted(order.samples(step))


@given(LENGTHS, st.sampled_from([1, 2, 3, 4]), st.integers(1, 12), st.integers(0, 61))
def test_no_micro_batch_has_samples_on_both_sides_of_a_border(
    lengths: np.ndarray[tuple[int], np.dtype[np.int64]], world: int, micro: int, border: int
) -> None:
    order = BatchOrder(lengths, Ordering(5, 12, border=border))
    shares = [order.share(0, Share(rank, world, micro)) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    for part in [part for share in shares for part in share]:
        assert len({int(lengths[unit[0]]) > border for unit in part}) <= 1
        assert len(part) <= micro
    together = [sample for share in shares for part in share for unit in part for sample in unit]
    assert sorted(together) == sorted(order.samples(0))


@given(LENGTHS, st.integers(60, 200))
def test_packed_rows_are_never_too_long_and_no_two_fit_into_one(
    lengths: np.ndarray[tuple[int], np.dtype[np.int64]], most: int
) -> None:
    order = BatchOrder(lengths, Ordering(0, 1, most))
    sizes = sorted(int(lengths[unit].sum()) for unit in order.units)
    assert sizes[-1] <= most
    assert len(sizes) < 2 or sizes[0] + sizes[1] > most


def test_seed_and_epoch_change_the_order_and_nothing_else_does() -> None:
    lengths = np.arange(2, 42, dtype=np.int64)
    first = [BatchOrder(lengths, Ordering(0, 8)).batch(step) for step in range(10)]
    assert first == [BatchOrder(lengths, Ordering(0, 8)).batch(step) for step in range(10)]
    assert first != [BatchOrder(lengths, Ordering(1, 8)).batch(step) for step in range(10)]
    assert first[:5] != first[5:]


def test_sorting_by_length_saves_padding() -> None:
    lengths = np.random.default_rng(0).integers(2, 200, 400).astype(np.int64)

    def padded(by_length: bool) -> int:
        order = BatchOrder(lengths, Ordering(0, 8, None, by_length))
        batches = [lengths[order.samples(step)] for step in range(order.steps(1))]
        return int(sum(batch.max() * len(batch) for batch in batches))

    assert padded(True) < 1.1 * lengths.sum() < padded(False)


def test_steps_round_up() -> None:
    order = BatchOrder(np.full(10, 5, np.int64), Ordering(0, 4))
    assert [order.steps(epochs) for epochs in (0.1, 0.4, 1, 2, 3)] == [1, 1, 3, 5, 8]
