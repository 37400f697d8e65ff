"""The guard: how a rank ended is known at once, whatever ended it, and its chunks are free."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.errors import IncompleteError, UsageError
from hpcjobs.launch.slurm import clean_environment
from hpcjobs.run_folder.heartbeat import Vitals, read_heartbeat
from hpcjobs.run_folder.ledger.chunks import ChunkList
from hpcjobs.run_folder.ledger.claims import Claims, Former
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity
from hpcjobs.worker.guard import free_chunks, guarded
from tests.runs import (
    DEADLINE,
    Ranks,
    finish,
    guarded_rank,
    lease_of,
    outcome,
    plan_run,
    process_state,
    record_of,
    records_in,
    run_ranks,
    start_process,
    undisturbed,
    vitals_of,
    wait_for,
    write_journal,
)

ROWS, SLOW = 97, {"engine": "dummy", "dummy_delay": 0.05}
PATIENT = {"heartbeat": 0.2, "chunk_size": 4, "lease_timeout": 600}


def end_well() -> None:
    pass


def leave(code: Any) -> Callable[[], None]:
    def work() -> None:
        sys.exit(code)

    return work


def fail(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


def die_by(number: signal.Signals) -> Callable[[], None]:
    def work() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    return work


# What the work does, the guard's exit code, and what `ended` is told.
CASES: dict[str, tuple[Callable[[], None], int, str]] = {
    "well": (end_well, 0, ""), "exit 0": (leave(0), 0, ""), "exit None": (leave(None), 0, ""),
    "exit 3": (leave(3), 3, "3"), "exit text": (leave("no"), 1, "1"), "usage": (fail(UsageError("no")), 2, "2"),
    "incomplete": (fail(IncompleteError("no")), 3, "3"), "interrupt": (fail(KeyboardInterrupt()), 130, "130"),
    "exception": (fail(ValueError("no")), 1, "1"), "SIGKILL": (die_by(signal.SIGKILL), 137, "-9"),
    "exit 0 at once": (lambda: os._exit(0), 1, "0"), "exit 0 at once, and in order": (lambda: os._exit(0), 0, "0"),
    "exit 7 at once": (lambda: os._exit(7), 7, "7"),
    "SIGSEGV": (die_by(signal.SIGSEGV), 139, "-11"), "SIGTERM": (die_by(signal.SIGTERM), 143, "-15"),
}  # fmt: skip


def run_case(case: str, folder: str) -> None:
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)]

    def ended(code: int) -> bool:
        Path(folder, "ended").write_text(str(code))
        return case == "exit 0 at once, and in order"

    code = guarded(CASES[case][0], ended)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)] == before
    sys.exit(code)


@pytest.mark.parametrize("case", CASES)
def test_the_guard_ends_as_its_rank_ended(tmp_path: Path, case: str) -> None:
    _, code, told = CASES[case]
    assert finish(start_process(run_case, case, str(tmp_path))) == code
    ended = tmp_path / "ended"
    assert (ended.read_text() if ended.exists() else "") == told


def told(paths: RunPaths) -> Vitals:
    vitals = read_heartbeat(paths.heartbeat("a", 0))
    assert vitals
    return vitals


def rank_process(paths: RunPaths) -> Identity:
    """The rank itself, below its guard, once it has finished a sample."""
    return Identity(**vitals_of(paths, 0).identity)


def kill_within_a_chunk(paths: RunPaths, pid: int) -> None:
    """Kill a rank while it holds a chunk; between two chunks there is nothing to free."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.01)  # a write that has begun is still finished
        listing = Claims(paths.round(0)).list()
        if listing.leased.keys() - listing.settled:
            break
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)


def test_of_a_killed_rank_the_guard_tells_how_and_frees_its_chunks(ram: Path) -> None:
    paths = plan_run(ram / "run", ROWS, model=SLOW, run=PATIENT)
    with Ranks(paths, 1, main=guarded_rank) as ranks:
        ranks.start(0)
        kill_within_a_chunk(paths, rank_process(paths).pid)
        assert ranks.finish(0) == [128 + signal.SIGKILL]
    vitals = told(paths)
    assert (vitals.state, vitals.signal, vitals.ended) == ("dead", "SIGKILL", "ended by SIGKILL")
    assert vitals.ended_at
    claims = Claims(paths.round(0))
    listing, made = claims.list(), records_in(ranks.journal(0))
    [chunk] = listing.leased.keys() - listing.settled
    lease = claims.read_lease(chunk, 1)
    whole = tuple(record.index for record in made if record.chunk == chunk)
    assert (lease.released, lease.journal) == ("its rank was ended by SIGKILL", "")
    assert lease.former == ((Former("a-0.jsonl", 0, whole),) if whole else ())
    run_ranks(paths, 2, "b")  # from another machine nobody can see that it is dead, and its lease holds ten minutes
    assert sum(len(records_in(path)) for path in paths.journals()) == ROWS
    assert outcome(paths)[1:] == undisturbed(ROWS)


def test_a_stopped_rank_that_is_alone_is_ended(ram: Path) -> None:
    """Nobody else holds its job, which would last up to its time limit."""
    paths = plan_run(ram / "run", ROWS, model=SLOW, run=PATIENT | {"lease_timeout": 1.0})
    with Ranks(paths, 1, main=guarded_rank) as ranks:
        ranks.start(0)
        ranks.wait_for_record(0)
        os.kill(rank_process(paths).pid, signal.SIGSTOP)
        assert ranks.finish(0) == [128 + signal.SIGKILL]
    assert str(told(paths).ended).startswith("ended by its guard: no sign of life for 1 s")
    claims = Claims(paths.round(0)).list()
    assert not claims.leased.keys() - claims.settled - {
        chunk for chunk, generation in claims.leased.items()
        if Claims(paths.round(0)).read_lease(chunk, generation).released
    }  # fmt: skip
    run_ranks(paths, 2, "b")
    assert outcome(paths)[1:] == undisturbed(ROWS)


def test_a_stopped_rank_may_wake_up_while_others_work(ram: Path) -> None:
    paths = plan_run(ram / "run", ROWS, model=SLOW, run=PATIENT | {"lease_timeout": 0.6, "heartbeat": 0.1})
    with Ranks(paths, 2, main=guarded_rank) as ranks:
        ranks.start(0, 1)
        ranks.wait_for_record(0)
        ranks.wait_for_record(1)
        pid = rank_process(paths).pid
        os.kill(pid, signal.SIGSTOP)
        time.sleep(1.5)
        os.kill(pid, signal.SIGCONT)
        assert ranks.finish(0, 1) == [0, 0]
    assert outcome(paths)[1:] == undisturbed(ROWS)


def test_of_a_killed_rank_whose_chunk_must_be_whole_nothing_counts(ram: Path) -> None:
    paths = plan_run(ram / "run", ROWS, run=PATIENT | {"deterministic": True})
    claims = Claims(paths.round(0))
    assert claims.lease(lease_of(0))
    write_journal(paths, [record_of(0, 0)])
    assert free_chunks(paths, "a-0.jsonl", "gone") == 1
    assert (claims.read_lease(0, 1).former, claims.read_lease(0, 1).released) == ((), "gone")


def test_only_what_the_dead_rank_still_held_is_given_back(ram: Path) -> None:
    paths = plan_run(ram / "run", ROWS)
    claims, (first, second, third) = Claims(paths.round(0)), ChunkList.read(paths.chunks(0))[0]
    earlier = (Former("a-9.jsonl", 0, (first,)),)
    held = [lease_of(0, rank=9), lease_of(0, generation=1, former=earlier), lease_of(1), lease_of(2)]
    for lease in [*held, lease_of(2, rank=1, generation=1), lease_of(3, rank=1)]:
        assert claims.lease(lease)
    assert claims.done(lease_of(1))
    write_journal(paths, [record_of(second, 0, generation=1), record_of(third, 0)])
    assert free_chunks(paths, "a-0.jsonl", "gone") == 1
    assert claims.read_lease(0, 2).former == (*earlier, Former("a-0.jsonl", 1, (second,)))
    assert [claims.kinds(chunk) for chunk in range(4)] == [(2, False), (0, True), (1, False), (0, False)]
    assert free_chunks(paths, "a-7.jsonl", "gone") == 0, "a rank without a journal holds nothing"
    assert free_chunks(paths, "a-0.jsonl", "gone") == 0, "again: it holds nothing any more"


@pytest.mark.skipif(sys.platform != "linux", reason="prctl(2) is Linux's")
def test_a_rank_does_not_outlive_its_guard(ram: Path) -> None:
    paths = plan_run(ram / "run", ROWS, model=SLOW, run=PATIENT)
    with Ranks(paths, 1, main=guarded_rank) as ranks:
        ranks.start(0)
        rank = rank_process(paths)
        assert process_state(rank.pid) not in ("", "Z")
        ranks.signal(0, signal.SIGKILL)
        assert ranks.finish(0) == [-signal.SIGKILL]
        wait_for(lambda: process_state(rank.pid) in ("", "Z"), "the end of the rank")
    assert (told(paths).state, told(paths).ended) == ("working", None), "nobody was there to tell"


def test_a_signal_to_the_guard_alone_reaches_the_rank(ram: Path) -> None:
    paths = plan_run(ram / "run", ROWS, model=SLOW, run=PATIENT)
    with Ranks(paths, 1, main=guarded_rank) as ranks:
        ranks.start(0)
        rank_process(paths)
        ranks.signal(0, signal.SIGTERM)
        assert ranks.finish(0) == [0]
    assert told(paths).state == "drained"
    assert str(told(paths).ended).startswith("drained: ended by SIGTERM")
    assert 0 < len(records_in(ranks.journal(0))) < ROWS


def test_a_rank_that_fails_keeps_its_own_words(ram: Path) -> None:
    paths = plan_run(ram / "run", ROWS, run=PATIENT)
    paths.data.unlink()
    with Ranks(paths, 1, main=guarded_rank) as ranks:
        ranks.start(0)
        assert ranks.finish(0) != [0]
    vitals = told(paths)
    assert (vitals.state, vitals.signal) == ("failed", None)
    assert "data.arrow" in str(vitals.first_error)
    assert "exit code" not in str(vitals.ended)


def test_a_process_that_no_launcher_has_named_is_told_of_as_well(ram: Path) -> None:
    """Its attempt is named after a process: guard and rank must mean the same one."""
    paths = plan_run(ram / "run", ROWS, model=SLOW, run=PATIENT)
    command = [sys.executable, "-m", "hpcjobs.worker", str(paths.root)]
    with subprocess.Popen(command, env=clean_environment(), stderr=subprocess.PIPE, text=True) as guard:
        os.kill(rank_process(paths).pid, signal.SIGKILL)
        _, words = guard.communicate(timeout=DEADLINE)
    assert guard.returncode == 137
    assert "was ended by SIGKILL" in words
    [beat] = paths.heartbeats.glob("*.json")
    vitals = read_heartbeat(beat)
    assert vitals
    assert (vitals.state, vitals.signal) == ("dead", "SIGKILL")
