from __future__ import annotations

import pytest

from hpcjobs.run_folder.run_state import RunState

WORDS = {
    "planned": (True, False), "pending": (False, False), "running": (False, False), "unknown": (False, False),
    "ended": (True, False), "complete": (True, True), "incomplete": (True, True), "cancelled": (True, False),
    "failed": (True, False),
}  # fmt: skip


def test_the_words_of_a_run_are_these() -> None:
    assert [state.value for state in RunState] == list(WORDS)


@pytest.mark.parametrize("state", RunState)
def test_what_a_state_says(state: RunState) -> None:
    assert (state.over, state.merged) == WORDS[state]
