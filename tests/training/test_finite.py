from __future__ import annotations

import math

import pytest

from hpcjobs.training.finite import Finite, NotFiniteError, not_finite


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_named_with_its_step(value: float) -> None:
    with pytest.raises(NotFiniteError, match=rf"^the loss of step 7 is {value}: .*; the last checkpoint is of step 4$"):
        Finite(7, 4).check("the loss", value)
    with pytest.raises(NotFiniteError, match="there is no checkpoint yet"):
        Finite(7, 0).check("the loss", value)
    Finite(7, 0).check("the loss", 1e308)


def test_the_first_bad_weight_is_named_and_the_others_counted() -> None:
    import torch

    weights = [torch.ones(3), torch.tensor([1.0, math.nan, math.inf]), torch.tensor(math.inf, dtype=torch.bfloat16)]
    assert not_finite(weights) == [0, 2, 1]
    assert not_finite([]) == []
    with pytest.raises(NotFiniteError, match=r"^after step 2 b has values that are no numbers, 2 of 3 weights are"):
        Finite(2, 1).check_weights(["a", "b", "c"], not_finite(weights))
    with pytest.raises(NotFiniteError, match=r"^after step 2 b has values that are no numbers: "):
        Finite(2, 1).check_weights(["a", "b"], [0, 1])
    Finite(2, 1).check_weights(["a", "b"], [0, 0])
