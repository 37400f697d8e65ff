"""What verify's findings end with, and how they are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcjobs.commands.status import Status
from hpcjobs.commands.verify_verdict import VerifyVerdict
from hpcjobs.compare.world_sizes import Mismatch
from hpcjobs.run_folder.run_state import RunState


def status_of(size: int, state: RunState) -> Status:
    done = {RunState.COMPLETE: 9, RunState.INCOMPLETE: 7}.get(state, 0)
    error = None if state == RunState.COMPLETE else "rank 0 on n1: boom"
    return Status(
        run=f"w{size}",
        job="eval",
        folder=f"/v/w{size}",
        state=state,
        rows=9,
        done=done,
        rate=0.0,
        eta=None,
        ranks=[],
        jobs={},
        first_error=error,
        notes=[],
        metrics=None,
    )


def verdict_of(*states: str, **changes: Any) -> VerifyVerdict:
    values: dict[str, Any] = {
        "runs": {2**place: status_of(2**place, RunState(state)) for place, state in enumerate(states)}, "samples": 9,
        "absent": {2**place: 0 for place in range(len(states))}, "byte_identical": True,
        "flips": Path("/v/flips.jsonl"), "differ": 0, "first_flips": [], "deterministic": True, "next": None,
    }  # fmt: skip
    return VerifyVerdict(**values | changes)


def flip_of(one: Any, other: Any, name: str = "completion") -> Mismatch:
    return Mismatch(3, "row-3", (2,), (name,), {1: {name: one}, 2: {name: other}})


@pytest.mark.parametrize(
    ("verdict", "code", "identical"),
    [
        (verdict_of("complete", "complete"), 0, True),
        (verdict_of("complete", "complete", byte_identical=False), 0, True),
        (verdict_of("complete", "complete", differ=1), 1, False),
        (verdict_of("complete", "incomplete", absent={1: 0, 2: 2}), 3, False),
        (verdict_of("incomplete", "incomplete"), 3, False),
        (verdict_of("incomplete", "complete", differ=1, absent={1: 2, 2: 0}), 1, False),
        (verdict_of("complete", "complete", absent={1: 0, 2: 1}), 1, False),
        (verdict_of("complete", "failed"), 1, False),
        (verdict_of("incomplete", "cancelled"), 1, False),
        (verdict_of("complete", "incomplete", "failed"), 1, False),
    ],
)
def test_the_exit_code_says_what_was_found(verdict: VerifyVerdict, code: int, identical: bool) -> None:
    assert (verdict.exit_code(), verdict.identical, verdict.values()["identical"]) == (code, identical, identical)


def test_the_headline_never_calls_identical_what_is_not() -> None:
    said = next(verdict_of("complete", "complete").lines())
    assert said == "identical 9 samples at world sizes 1, 2; results.parquet is byte-identical"
    for verdict in (
        verdict_of("complete", "complete", absent={1: 0, 2: 1}, samples=8),
        verdict_of("complete", "incomplete", absent={1: 0, 2: 2}, samples=7, byte_identical=False),
        verdict_of("complete", "complete", "failed", absent={1: 0, 2: 0}),
        verdict_of("complete", "complete", differ=2),
        verdict_of("complete", "failed", byte_identical=None, absent={1: 0}),
    ):
        assert not next(verdict.lines()).startswith("identical")
    lost = next(verdict_of("complete", "incomplete", absent={1: 0, 2: 2}, samples=7).lines())
    assert (
        lost == "no flips  7 samples at world sizes 1, 2; 2 lacks 2 that others have; results.parquet is byte-identical"
    )


def test_what_is_not_complete_is_named_with_the_next_command() -> None:
    assert list(verdict_of("complete", "complete").advice()) == []
    said = list(verdict_of("complete", "incomplete", "failed").advice())
    assert said == [
        "world size 2: incomplete: rank 0 on n1: boom", "next: hpcjobs resume /v/w2",
        "world size 4: failed: rank 0 on n1: boom", "next: hpcjobs logs --errors /v/w4",
    ]  # fmt: skip


def test_flips_are_told_up_to_the_limit() -> None:
    verdict = verdict_of(
        "complete", "complete", differ=2, first_flips=[flip_of("a\nb\x9b", "a")], next="hpcjobs verify"
    )
    assert list(verdict.lines())[1:5] == [
        "'row-3' (index 3): at 2 not as at 1",
        "  completion           1: 'a\\nb\\x9b'",
        "  completion           2: 'a'",
        "all 2 samples that differ: /v/flips.jsonl",
    ]
    assert "next: hpcjobs verify" in list(verdict.advice())[-1]


@pytest.mark.parametrize(
    ("one", "other"),
    [("x" * 900 + "left" + "y" * 900, "x" * 900 + "right"), ("x" * 900 + "left", "x" * 900 + "right" + "y" * 900)],
)
def test_of_long_texts_the_first_difference_is_shown(one: str, other: str) -> None:
    first, second = list(flip_of(one, other).lines())[1:]
    assert "left" in first
    assert "right" in second
    assert len(first) + len(second) < 600


def test_one_long_text_beside_none_or_a_shorter_one_is_shown() -> None:
    assert "'xxx" in list(flip_of("x" * 900, None).lines())[1]
    assert "xxx" in list(flip_of("x" * 900, "x" * 800).lines())[1]
