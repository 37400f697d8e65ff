"""What compare's findings end with, and how flips are told."""

from __future__ import annotations

from typing import Any, cast

import pytest

from hpcjobs.compare.eval import Comparison
from hpcjobs.compare.eval_findings import Findings
from hpcjobs.compare.flips import Flip
from hpcjobs.compare.gates import Gate


@pytest.mark.parametrize(
    ("passed", "code"),
    [
        ([], 0), ([True], 0), ([True, True], 0), ([False], 1), ([True, False], 1), ([None], 3), ([True, None], 3),
        ([None, False], 1),
    ],
)  # fmt: skip
def test_the_exit_code_is_the_worst_gate(passed: list[bool | None], code: int) -> None:
    gates = [Gate(metric="m", limit=0.0, drop=0.0, passed=each) for each in passed]
    assert Findings(cast("Comparison", None), gates, None).exit_code() == code


def flip_of(a: Any, b: Any, **changes: Any) -> Flip:
    row: Any = {"index": 1, "scores": {"em": 1.0}, "error": None}
    return Flip("r\x1b[2J", ("em",), ("f1",), row | {"completion": a}, row | {"completion": b} | changes)


def test_a_flip_is_told_without_its_control_characters() -> None:
    error = {"type": "ValueError", "message": "bad\x9b"}
    assert list(flip_of("x\n", None, error=error).lines()) == [
        "'r\\x1b[2J': em 1 -> 0, f1 0 -> 1",
        "  A: 'x\\n'",
        "  B: ''  error ValueError: 'bad\\x9b'",
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x" * 900 + "left" + "y" * 900, "x" * 900 + "right"), ("x" * 900 + "left", "x" * 900 + "right" + "y" * 900),
        ("left" + "y" * 900, "right" + "z" * 900),
    ],
)  # fmt: skip
def test_of_long_texts_the_first_difference_is_shown(one: str, other: str) -> None:
    _, first, second = flip_of(one, other).lines()
    assert "left" in first
    assert "right" in second
    assert len(first) + len(second) < 600


def test_a_long_text_that_only_goes_on_is_shown_where_it_does() -> None:
    _, first, second = flip_of("x" * 900, "x" * 900 + "more").lines()
    assert "more" in second
    assert "xxx" in first
