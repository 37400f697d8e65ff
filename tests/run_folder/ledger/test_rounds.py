from __future__ import annotations

import signal
from pathlib import Path

import pytest

from hpcjobs.errors import HpcJobsError
from hpcjobs.merge.eval import merge
from hpcjobs.run_folder.ledger.acceptance import Acceptance
from hpcjobs.run_folder.ledger.chunks import ChunkList
from hpcjobs.run_folder.ledger.claims import Claims, Former
from hpcjobs.run_folder.ledger.rounds import _close_chunk, close_round, open_round
from hpcjobs.run_folder.paths import RunPaths
from tests.runs import (
    Ranks,
    finish,
    lease_of,
    missing_lines,
    next_round,
    outcome,
    plan_run,
    records_in,
    run_ranks,
    start_process,
    undisturbed,
    wait_for,
)

ROWS, SLOW = 97, {"engine": "dummy", "dummy_delay": 0.01}


def half_run(folder: Path, deterministic: bool = False) -> tuple[RunPaths, int]:
    """A run whose two ranks were killed, and a chunk that was left half done."""
    paths = plan_run(folder, ROWS, model=SLOW, run={"heartbeat": 0.2, "deterministic": deterministic})
    with Ranks(paths, 2) as ranks:
        ranks.start(0, 1)
        chunk = ranks.stop_inside_chunk(1)
        ranks.wait_for_record(0)
    return paths, chunk


def claim_files(paths: RunPaths, number: int) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in paths.round(number).iterdir()}


def counted(paths: RunPaths) -> set[tuple[int, int, str]]:
    """(chunk, index, journal) of all that counts in round 0."""
    accepted = Acceptance(paths, 0, ROWS)
    records = [(path.name, record) for path in paths.journals() for record in records_in(path)]
    return {(r.chunk, r.index, name) for name, r in records if accepted.accepts(name, r)}


def test_closing_fixes_what_is_whole_and_twice_is_once(ram: Path) -> None:
    paths, chunk = half_run(ram / "run")
    before = counted(paths)
    close_round(paths, 0, deterministic=False)
    files = claim_files(paths, 0)
    assert counted(paths) == before
    assert Claims(paths.round(0)).list().settled == set(range(len(ChunkList.read(paths.chunks(0)))))
    whole = tuple(r.index for r in records_in(paths.journal("a", 1)) if r.chunk == chunk)
    assert Claims(paths.round(0)).read_verdict(chunk, "closed").former == (Former("a-1.jsonl", 0, whole),)
    close_round(paths, 0, deterministic=False)
    assert claim_files(paths, 0) == files


def test_a_late_writer_changes_nothing_that_counts(ram: Path) -> None:
    paths = plan_run(ram / "run", ROWS, model=SLOW, run={"heartbeat": 0.2})
    with Ranks(paths, 2) as ranks:
        ranks.start(0)
        chunk = ranks.stop_inside_chunk(0)
        close_round(paths, 0, deterministic=False)
        first = merge(paths)
        before, table, reasons = counted(paths), paths.results.read_bytes(), missing_lines(paths)
        ranks.signal(0, signal.SIGCONT)
        assert ranks.finish(0) == [0]
    assert Claims(paths.round(0)).read_verdict(chunk, "done").journal == "a-0.jsonl", "it was not late"
    late = {r.index for r in records_in(paths.journal("a", 0))} - {index for _, index, _ in before}
    assert late
    assert late <= set(first.missing)
    assert counted(paths) == before
    assert merge(paths).missing == first.missing
    assert (paths.results.read_bytes(), missing_lines(paths)) == (table, reasons)
    open_round(paths, 1, first.missing, 3, deterministic=False)
    run_ranks(paths, 2, "b")
    assert outcome(paths)[1:] == undisturbed(ROWS)


def close_at_once(run: str, go: str, deterministic: bool) -> None:
    wait_for(Path(go).exists, "the start")
    close_round(RunPaths(Path(run)), 0, deterministic)


def test_racing_closers_agree(ram: Path) -> None:
    paths, _ = half_run(ram / "run")
    before, open_chunks = counted(paths), Acceptance(paths, 0, ROWS).unfinished
    closers = [start_process(close_at_once, str(paths.root), str(ram / "go"), False) for _ in range(3)]
    (ram / "go").touch()
    assert [finish(process) for process in closers] == [0, 0, 0]
    assert Claims(paths.round(0)).list().closed == open_chunks
    assert counted(paths) == before
    missing = next_round(paths)
    assert set(missing) == set(range(ROWS)) - {index for _, index, _ in before}
    run_ranks(paths, 3, "b")
    assert outcome(paths)[1:] == undisturbed(ROWS)


def test_a_closer_that_died_between_lease_and_closing_is_no_obstacle(ram: Path) -> None:
    paths, chunk = half_run(ram / "run")
    before, claims = counted(paths), Claims(paths.round(0))
    former = (Former("a-1.jsonl", 0, tuple(index for c, index, _ in before if c == chunk)),)
    assert claims.lease(lease_of(chunk, attempt="closer", journal="", generation=1, former=former))
    close_round(paths, 0, deterministic=False)
    assert claims.read_verdict(chunk, "closed").generation == 2
    assert counted(paths) == before


def test_a_chunk_that_is_done_after_the_closers_look_stays_done(ram: Path) -> None:
    paths, chunk = half_run(ram / "run")
    claims, members = Claims(paths.round(0)), set(ChunkList.read(paths.chunks(0))[chunk])
    assert claims.done(claims.read_lease(chunk, 0))
    files = claim_files(paths, 0)
    _close_chunk(paths, claims, chunk, members, True)
    assert claim_files(paths, 0) == files


def test_the_second_to_open_a_round_is_told(ram: Path) -> None:
    paths, _ = half_run(ram / "run")
    missing = next_round(paths)
    layout = paths.chunks(1).read_bytes()
    with pytest.raises(HpcJobsError, match=r"round 1 of .* was opened by another resume: see hpcjobs status"):
        open_round(paths, 1, missing[:1], 3, deterministic=False)
    assert paths.chunks(1).read_bytes() == layout
    assert paths.rounds() == [0, 1]


def test_the_next_round_has_what_is_missing_in_the_planned_order(ram: Path) -> None:
    paths, _ = half_run(ram / "run")
    missing = next_round(paths)
    planned, chunks = (ChunkList.read(paths.chunks(number)) for number in (0, 1))
    order = [index for n in range(len(planned)) for index in planned[n] if index in missing]
    assert [index for n in range(len(chunks)) for index in chunks[n]] == order
    assert 0 < len(order) < ROWS
    reasons = missing_lines(paths).values()
    assert "chunk 0 was never started" not in reasons
    assert any(reason.endswith("was left unfinished by a-1") for reason in reasons)
    assert any(reason.endswith("was never started") for reason in reasons)


def test_with_deterministic_a_half_done_chunk_is_redone_as_a_whole(ram: Path) -> None:
    paths, chunk = half_run(ram / "run", deterministic=True)
    missing = next_round(paths, deterministic=True)
    planned, chunks = (ChunkList.read(paths.chunks(number)) for number in (0, 1))
    again = [chunks[n] for n in range(len(chunks))]
    assert planned[chunk] in again
    assert all(part in [planned[n] for n in range(len(planned))] for part in again)
    assert sorted(missing) == sorted(index for part in again for index in part)
    run_ranks(paths, 3, "b")
    assert outcome(paths)[1:] == undisturbed(ROWS)
    assert {r.index for p in paths.journals() if p.name[0] == "b" for r in records_in(p)} == set(missing)


def test_round_after_round_ends_complete(ram: Path) -> None:
    """Each start is killed inside a chunk: nothing that was finished is ever run again."""
    paths = plan_run(ram / "run", ROWS, model=SLOW, run={"heartbeat": 0.2})
    made: set[int] = set()
    for attempt in "abc":
        with Ranks(paths, 1, attempt) as ranks:
            ranks.start(0)
            ranks.wait_for_record(0)
            ranks.signal(0, signal.SIGKILL)
            ranks.finish(0)
        fresh = {record.index for record in records_in(paths.journal(attempt, 0))}
        assert fresh
        assert not fresh & made
        made |= fresh
        assert set(next_round(paths)) == set(range(ROWS)) - made
    run_ranks(paths, 2, "d")
    assert outcome(paths)[1:] == undisturbed(ROWS)
