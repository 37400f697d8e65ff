"""What the watch sees and the working thread cannot: that it hangs, that its time is up, that it stood still."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.distributed.drain import Allocation, Drain
from hpcjobs.distributed.watchdog import Limits, Watchdog
from hpcjobs.merge.eval import merge
from hpcjobs.run_folder.heartbeat import Heartbeat, Vitals, read_heartbeat
from hpcjobs.run_folder.journal.journal import read_journal
from hpcjobs.run_folder.ledger.chunks import ChunkList, write_chunks
from hpcjobs.run_folder.ledger.claims import Claims, Former
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity
from hpcjobs.run_folder.rank_state import RankState
from tests.hangs import Hangs
from tests.runs import (
    Ranks,
    finish,
    outcome,
    plan_run,
    process_state,
    rank_elsewhere,
    records_in,
    run_ranks,
    said,
    start_process,
    undisturbed,
    wait_for,
)

ROWS, BAD = 97, 7
RULES = {"heartbeat": 0.1, "chunk_size": 4, "lease_timeout": 600, "progress_timeout": 1.0}


@pytest.fixture
def hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hangs:
    return Hangs(tmp_path, monkeypatch)


def plan(folder: Path, hangs: Hangs, **rules: Any) -> RunPaths:
    task = {"metrics": ["exact_match", "contains", hangs.metric]}
    return plan_run(folder, ROWS, task=task, run=RULES | rules)


def told(paths: RunPaths, rank: int) -> Vitals:
    vitals = read_heartbeat(paths.heartbeat("a", rank))
    assert vitals
    return vitals


def chunk_of(paths: RunPaths, index: int) -> int:
    chunks = ChunkList.read(paths.chunks(0))
    return next(chunk for chunk in range(len(chunks)) if index in chunks[chunk])


def calm(folder: Path, hangs: Hangs) -> tuple[bytes, dict[str, Any]]:
    """What the same run comes to where nothing hangs."""
    hangs.no_more()
    paths = plan(folder, hangs)
    run_ranks(paths, 1)
    return outcome(paths)[1:]


def test_a_hung_rank_ends_and_the_others_have_its_chunk_at_once(ram: Path, hangs: Hangs) -> None:
    paths = plan(ram / "run", hangs)
    hangs.at(BAD)
    with Ranks(paths, 2, main=rank_elsewhere) as ranks:
        ranks.start(0, 1)
        assert sorted(ranks.finish(0, 1)) == [0, 1]
    [hung] = [rank for rank in (0, 1) if told(paths, rank).state == "failed"]
    vitals, stacks = told(paths, hung), paths.stacks("a", hung)
    assert str(vitals.first_error).startswith("hung: no progress in 1 s while working, since sample ")
    assert str(vitals.ended).startswith("hung: ")
    assert vitals.ended_at
    assert str(stacks) in str(vitals.first_error)
    assert " in stand_still\n" in stacks.read_text(), "the stacks do not say where it hangs"
    assert "hung: no progress" in paths.rank_log("a", hung).read_text()
    chunk = chunk_of(paths, BAD)
    lease = Claims(paths.round(0)).read_lease(chunk, 1)
    assert lease.suspects == (BAD,)
    assert lease.released.startswith("hung: ")
    whole = tuple(record.index for record in records_in(ranks.journal(hung)) if record.chunk == chunk)
    assert lease.former == ((Former(f"a-{hung}.jsonl", 0, whole),) if whole else ())
    assert told(paths, 1 - hung).state == "done"
    assert sum(len(records_in(path)) for path in paths.journals()) == ROWS, "a sample was made twice"
    merged, content, values = outcome(paths)
    assert merged.complete
    assert (content, values) == calm(ram / "calm", hangs)


def test_a_sample_with_which_three_ranks_hang_is_an_error_record(ram: Path, hangs: Hangs) -> None:
    paths = plan(ram / "run", hangs)
    hangs.at(BAD, times=9)
    with Ranks(paths, 4, main=rank_elsewhere) as ranks:
        ranks.start(0, 1, 2, 3)
        assert sorted(ranks.finish(0, 1, 2, 3)) == [0, 1, 1, 1]
    assert hangs.happened() == 3
    [verdict] = [record for path in paths.journals() for record in read_journal(path) if record.index == BAD]
    assert verdict.error
    assert verdict.error.type == "HungError"
    assert "3 ranks have made no progress with it" in verdict.error.message
    claims, chunk = Claims(paths.round(0)), chunk_of(paths, BAD)
    assert [len(claims.read_lease(chunk, n).suspects) for n in range(claims.kinds(chunk)[0] + 1)] == [
        0,
        1,
        1,
        2,
        2,
        3,
        3,
    ]
    assert merge(paths).complete
    assert said(paths)["counts"]["errors"] == 6, "five of its own templates, and the one that hangs"


def test_a_rank_whose_time_is_up_leaves_though_its_engine_stands_still(ram: Path, hangs: Hangs) -> None:
    """SIGTERM comes, the sample in hand does not end: at the last moment all is given back, and nobody is to blame."""
    paths = plan(ram / "run", hangs, progress_timeout=600)
    hangs.at(BAD)
    with Ranks(paths, 1, main=rank_elsewhere, HPCJOBS_KILL_WAIT="3") as ranks:
        ranks.start(0)
        wait_for(lambda: hangs.happened() == 1, "the stand")
        ranks.signal(0, signal.SIGTERM)
        asked = time.monotonic()
        assert ranks.finish(0) == [0]
        assert time.monotonic() - asked < 3, "SIGKILL would have come first"
    vitals = told(paths, 0)
    assert vitals.state == "drained"
    assert str(vitals.ended).startswith("drained: ended by SIGTERM")
    lease = Claims(paths.round(0)).read_lease(chunk_of(paths, BAD), 1)
    assert (lease.suspects, lease.released) == ((), vitals.ended)
    run_ranks(paths, 1, "b")
    assert sum(len(records_in(path)) for path in paths.journals()) == ROWS
    assert outcome(paths)[1:] == calm(ram / "calm", hangs)


def test_long_loading_is_reported_and_ends_nobody(ram: Path, hangs: Hangs) -> None:
    paths = plan(ram / "run", hangs, progress_timeout=0.4)
    hangs.at("loading")
    with Ranks(paths, 1) as ranks:
        ranks.start(0)
        wait_for(lambda: "while loading" in str((v := read_heartbeat(paths.heartbeat("a", 0))) and v.first_error), "it")
        wait_for(lambda: paths.stacks("a", 0).read_text().count("in stand_still") >= 2, "a second report")
        assert told(paths, 0).state == "loading"
        ranks.signal(0, signal.SIGTERM)
        assert ranks.finish(0) == [143], "nothing was in hand that could have been drained"
    assert told(paths, 0).state == "drained"
    assert "SIGTERM" in str(told(paths, 0).ended)


def stand_still(folder: str) -> None:
    """A rank without progress that is stopped in the middle."""
    vitals, here = (
        Vitals(rank=0, attempt="a", host="here", world_size=1, identity=Identity.own().values()),
        Path(folder),
    )
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    with Heartbeat(here / "a-0.json", vitals, 60) as heartbeat:
        drain = Drain(Allocation(None, 0, 90, 30))
        with Watchdog(heartbeat, drain, Limits(progress=1.2, stall=0.5), here / "stacks") as watch:
            seen = [watch.stalled()]
            heartbeat.enter(RankState.WORKING)
            drain.engaged = True
            wait_for(lambda: watch._idle > 0, "the watch to have begun to count")
            os.kill(os.getpid(), signal.SIGSTOP)
            wait_for(lambda: seen.append(watch.stalled()) or seen[-1], "the watch to see it")  # type: ignore[func-returns-value]
            (here / "seen").write_text(json.dumps([seen[0], seen[-1], watch.stalled()]))
            threading.Event().wait()


def test_what_happens_while_the_process_is_stopped_is_seen_and_not_held_against_it(tmp_path: Path) -> None:
    process = start_process(stand_still, str(tmp_path))
    wait_for(lambda: process_state(process.pid) == "T", "the stop")
    stopped = time.monotonic()
    wait_for(lambda: time.monotonic() - stopped > 1.3, "more than the time without progress")
    goes_on = time.time()
    assert process.pid
    os.kill(process.pid, signal.SIGCONT)
    assert finish(process) == 1
    vitals = read_heartbeat(tmp_path / "a-0.json")
    assert vitals
    assert (vitals.state, vitals.samples) == ("failed", 0)
    assert "since it began" in str(vitals.first_error)
    assert vitals.ended_at
    assert vitals.ended_at - goes_on > 0.25, "the time for which it was stopped was counted"
    assert json.loads((tmp_path / "seen").read_text()) == [False, True, False]


def test_a_rank_that_stood_still_forgets_what_others_have_taken(ram: Path) -> None:
    """One large chunk: all of it would be made in vain."""
    slow = {"engine": "dummy", "dummy_delay": 0.02}
    paths = plan_run(ram / "run", ROWS, model=slow, run={"heartbeat": 0.1, "lease_timeout": 0.6})
    paths.chunks(0).unlink()
    assert write_chunks(paths.chunks(0), [list(range(60)), *([index] for index in range(60, ROWS))])
    with Ranks(paths, 3) as ranks:
        ranks.start(0)
        assert ranks.stop_inside_chunk(0) == 0
        ranks.start(1, 2)
        assert ranks.finish(1, 2) == [0, 0]
        verdict, before = Claims(paths.round(0)).read_verdict(0, "done"), records_in(ranks.journal(0))
        assert outcome(paths)[0].complete
        first = paths.results.read_bytes()
        ranks.signal(0, signal.SIGCONT)
        assert ranks.finish(0) == [0]
    assert Claims(paths.round(0)).read_verdict(0, "done") == verdict
    assert len(verdict.former[0].indexes) == len(before)
    late = len(records_in(ranks.journal(0))) - len(before)
    assert 1 <= late < 20, "it went on with a chunk that was not its own any more"
    assert "chunk 0 was taken over while this rank stood still" in paths.rank_log("a", 0).read_text()
    assert (told(paths, 0).state, told(paths, 0).open) == ("done", 0)
    merged, content, values = outcome(paths)
    assert merged.complete
    assert content == first
    assert (content, values) == undisturbed(ROWS)
