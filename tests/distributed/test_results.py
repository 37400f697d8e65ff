"""Results as bytes and in input order again."""

from __future__ import annotations

import pytest

from hpcjobs.distributed.results import interleave, packed, unpacked
from hpcjobs.errors import UsageError


@pytest.mark.parametrize("count", [0, 1, 7, 97])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_interleave_undoes_the_split(count: int, world: int) -> None:
    items = list(range(count))
    assert interleave([items[rank::world] for rank in range(world)]) == items


def test_interleave_refuses_what_cannot_be_a_split() -> None:
    with pytest.raises(UsageError, match=r"\[1, 2\]"):
        interleave([["a"], ["b", "c"]])


def test_what_is_packed_is_what_is_unpacked_in_input_order() -> None:
    rows = [{"n": n, "of": [n, None, "é"]} for n in range(5)]
    assert unpacked([packed(rows[0::2]), packed(rows[1::2])]) == rows
    assert unpacked([]) == []


def test_the_result_that_cannot_be_sent_is_named() -> None:
    with pytest.raises(UsageError, match="result 1 of this rank, a function, cannot be sent"):
        packed([1, lambda: 2, 3])
