"""Which rows are compared."""

from __future__ import annotations

import pytest

from hpcjobs.distributed.row_samples import sampled, sampled_places


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 16, 17, 1000])
def test_the_places_are_those_that_are_sampled(count: int) -> None:
    assert sampled_places(count) == [place for place in range(count) if sampled(place)]
