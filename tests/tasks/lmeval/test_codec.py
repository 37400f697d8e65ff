"""Values come back from JSON as they were."""

from __future__ import annotations

import datetime
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcjobs.tasks.lmeval.codec import decode, encode

_leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.dates()
_keys = st.text() | st.integers() | st.tuples(st.integers(), st.text()) | st.just("__kind__")
_values = st.recursive(
    _leaves,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(_keys, inner) | st.sets(st.integers()),
    max_leaves=12,
)


@given(_values)
def test_whatever_a_document_holds_comes_back(value: Any) -> None:
    back = decode(encode(value))
    assert back == value
    assert type(back) is type(value)


def test_arrays_and_their_numbers() -> None:
    array = np.array([[0.1, 2.5], [3.0, -1e300]], dtype=np.float64)
    back = decode(encode([array, np.float32(0.5), np.int64(7), np.bool_(True)]))
    assert back[0].dtype == array.dtype
    assert (back[0] == array).all()
    assert back[1:] == [0.5, 7, True]
    assert [type(one) for one in back[1:]] == [float, int, bool]


def test_numbers_that_json_has_no_word_for() -> None:
    assert math.isnan(decode(encode(math.nan)))
    assert decode(encode((-math.inf, np.float64("inf")))) == (-math.inf, math.inf)


def test_what_cannot_be_kept_is_named() -> None:
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    assert decode(encode(moment)) == moment
    with pytest.raises(TypeError, match=r"builtins\.object cannot be kept"):
        encode({"image": [object()]})
