from __future__ import annotations

import copy
import json
import pickle
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.run_folder.heartbeat import Heartbeat, Vitals, read_heartbeat, write_heartbeat
from hpcjobs.run_folder.process import Identity
from hpcjobs.run_folder.rank_state import ENDED, RankState


def test_the_words_on_disk_are_those_of_all_versions() -> None:
    assert [state.value for state in RankState] == [
        "starting", "loading", "working", "waiting", "saving", "validating", "draining",
        "done", "drained", "failed", "dead", "over", "silent", "no heartbeat",
    ]  # fmt: skip
    assert {"done", "drained", "failed", "dead"} == ENDED


@pytest.mark.parametrize("state", [*RankState, RankState("resting")])
def test_a_state_is_its_word_wherever_it_goes(state: RankState) -> None:
    word = state.value
    assert (f"{state:<9}", json.dumps(state), {state: 1}[RankState(word)]) == (f"{word:<9}", f'"{word}"', 1)
    assert state == copy.deepcopy(state) == pickle.loads(pickle.dumps(state)) == word
    assert isinstance(copy.deepcopy(state), RankState)


def test_a_word_of_a_newer_version_is_read_and_shown(tmp_path: Path) -> None:
    path, vitals = (
        tmp_path / "a-0.json",
        Vitals(rank=0, attempt="a", host="here", world_size=1, identity=Identity.own().values()),
    )
    with Heartbeat(path, vitals, 60) as heartbeat:
        heartbeat.enter(RankState.WORKING)
        path.write_bytes(path.read_bytes().replace(b'"working"', b'"resting"'))
        found = read_heartbeat(path)
        assert found
        assert (found.state, repr(found.state), isinstance(found.state, RankState)) == (
            "resting", "<RankState.resting: 'resting'>", True,
        )  # fmt: skip
        write_heartbeat(path, found)
        assert json.loads(path.read_bytes()) == asdict(found)
    assert list(RankState) == [state for state in RankState if state != "resting"], "it is no state of this version"


def test_what_is_no_word_is_no_state(tmp_path: Path) -> None:
    no_word: Any = None
    with pytest.raises(ValueError, match="None is not a valid RankState"):
        RankState(no_word)
    path = tmp_path / "a-0.json"
    path.write_text(
        json.dumps(
            asdict(Vitals(rank=0, attempt="a", host="here", world_size=1, identity=Identity.own().values()))
            | {"state": 7}
        )
    )
    assert read_heartbeat(path) is None
