"""Values and rows as JSON files have them, for the comparison with Python's own readers."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

TEXTS = st.text(max_size=6) | st.sampled_from(
    ["2020-01-01", "12", "true", "null", "", "NaN", 'a"b', "\\", "\u2028", "\U0001f600", "\x00", "\x7f"]
)
NUMBERS = st.integers(-5, 5) | st.floats() | st.sampled_from(
    [0.0, -0.0, 12.0, 1e300, 5e-324, 1e22, 2**53 + 1, 2**63, 2**64, -(2**63) - 1]
)  # fmt: skip
KEYS = st.sampled_from(["a", "b", "c", "role", "content", ",", ":", "ab", "é", "", "1"])
_SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
ANYTHING = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)
_CHATS = st.lists(st.fixed_dictionaries({"role": TEXTS, "content": TEXTS}), max_size=3)
_DEEP = st.fixed_dictionaries({"x": NUMBERS, "y": st.fixed_dictionaries({"p": st.integers(), "q": TEXTS})})
# What the columns of real files hold: one kind of value, or nearly.
_KINDS = [TEXTS, st.integers(-9, 9), st.floats(), NUMBERS, st.lists(st.floats(), max_size=3), _CHATS, _DEEP, ANYTHING]


@st.composite
def json_rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rows of one file: columns of one kind each, some rows without a column, objects without a key or in disorder."""
    names = draw(st.lists(st.sampled_from(["q", "n", "opts", "role", "x y", "m"]), unique=True, max_size=4))
    kinds = {name: draw(st.sampled_from(_KINDS)) for name in names}
    rows = []
    for _ in range(draw(st.integers(0, 14))):
        order = draw(st.permutations(names)) if draw(st.integers(0, 5)) == 0 else names
        row = {name: draw(kinds[name]) for name in order if draw(st.integers(0, 9))}
        rows.append({name: _disturbed(value, draw(st.integers(0, 12))) for name, value in row.items()})
    return rows


def _disturbed(value: Any, how: int) -> Any:
    if isinstance(value, dict) and how < 2:
        items = list(value.items())
        return dict(reversed(items)) if how else dict(items[:-1])
    return value


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, with their types, the signs of zeros, and the order of keys."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        signs = math.copysign(1, one) == math.copysign(1, other)
        return (math.isnan(one) and math.isnan(other)) or (one == other and signs)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
