"""Closing a round and opening the next, by claims and journals written by hand."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.errors import DiskFullError, HpcJobsError
from hpcjobs.run_folder.ledger import rounds
from hpcjobs.run_folder.ledger.acceptance import Acceptance
from hpcjobs.run_folder.ledger.chunks import ChunkList, runs_again, write_chunks
from hpcjobs.run_folder.ledger.claims import Claims, Counted, Former
from hpcjobs.run_folder.ledger.rounds import close_round, open_round
from hpcjobs.run_folder.paths import RunPaths
from tests.runs import lease_of, record_of, round_by_hand, write_journal

CHUNKS = [[3, 1], [0, 2], [4], [6, 5]]


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    """Chunk 0 is done; of 1 one of two samples is; 2 was never begun; 3 was given back by one and taken by another."""
    found = round_by_hand(tmp_path, CHUNKS)
    claims = Claims(found.round(0))
    for chunk in (0, 1):
        claims.lease(lease_of(chunk, chunk))
    claims.done(lease_of(0, 0))
    claims.lease(lease_of(3, 0))
    claims.lease(lease_of(3, 1, generation=1, former=(Former("a-0.jsonl", 0, (6,)),)))
    write_journal(found, [record_of(3, 0), record_of(1, 0), record_of(6, 3)], "a-0.jsonl")
    write_journal(found, [record_of(2, 1, 1), record_of(5, 3, 1, generation=1), record_of(9, 1, 1)], "a-1.jsonl")
    return found


def test_closing_counts_whole_samples_of_the_last_holder_and_those_before(paths: RunPaths) -> None:
    close_round(paths, 0, deterministic=False)
    claims = Claims(paths.round(0))
    assert claims.list().closed == {1, 2, 3}
    assert [claims.read_verdict(chunk, "closed") for chunk in (1, 2, 3)] == [
        Counted(1, None, 1, (Former("a-1.jsonl", 0, (2,)),)),
        Counted(2, None, 0, ()),
        Counted(3, None, 2, (Former("a-0.jsonl", 0, (6,)), Former("a-1.jsonl", 1, (5,)))),
    ]
    assert [claims.read_lease(chunk, generation).attempt for chunk, generation in ((1, 1), (2, 0), (3, 2))] \
        == ["closer"] * 3
    found = Acceptance(paths, 0, 7)
    late = [found.accepts("a-1.jsonl", record_of(index, 1, 1)) for index in (0, 2)]
    assert late == [False, True], "what comes later does not count"


def test_with_deterministic_nothing_of_an_unfinished_chunk_counts(paths: RunPaths) -> None:
    close_round(paths, 0, deterministic=True)
    claims = Claims(paths.round(0))
    assert [claims.read_verdict(chunk, "closed").former for chunk in (1, 2, 3)] == [(), (), ()]
    assert claims.list().done == {0}


def test_a_rank_that_takes_the_chunk_meanwhile_is_the_last_holder(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the closer's look and its lease: it looks again."""
    lease = Claims.lease

    def quicker(claims: Claims, ours: Any) -> bool:
        if ours.attempt == "closer" and ours.chunk == 2 and not ours.generation:
            assert lease(claims, lease_of(2, 1))
            with (paths.ranks / "a-1.jsonl").open("ab") as file:
                file.write(record_of(4, 2, 1).line())
        return lease(claims, ours)

    monkeypatch.setattr(Claims, "lease", quicker)
    close_round(paths, 0, deterministic=False)
    assert Claims(paths.round(0)).read_verdict(2, "closed") == Counted(2, None, 1, (Former("a-1.jsonl", 0, (4,)),))


@pytest.mark.parametrize("again", [True, False])
def test_the_next_round_has_the_missing_samples_in_planned_order(paths: RunPaths, again: bool) -> None:
    open_round(paths, 1, [5, 0, 3], 2, deterministic=False, again=again)
    chunks = ChunkList.read(paths.chunks(1))
    assert [index for n in range(len(chunks)) for index in chunks[n]] == [3, 0, 5]
    assert runs_again(paths.chunks(1)) is again
    with pytest.raises(HpcJobsError, match=f"round 1 of {paths.root} was opened by another resume: see hpcjobs status"):
        open_round(paths, 1, [5], 2, deterministic=False)
    assert paths.rounds() == [0, 1]


def test_the_next_round_tapers_too(paths: RunPaths) -> None:
    paths.chunks(0).unlink()
    write_chunks(paths.chunks(0), [range(1000)])
    open_round(paths, 1, range(0, 1000, 2), 8, deterministic=False)
    chunks = ChunkList.read(paths.chunks(1))
    assert chunks.indexes.tolist() == list(range(0, 1000, 2))
    assert (max(chunks.sizes()), chunks.sizes()[-1]) == (8, 1)


def test_with_deterministic_planned_chunks_run_again_whole(paths: RunPaths) -> None:
    open_round(paths, 1, [5, 3], 1, deterministic=True)
    chunks = ChunkList.read(paths.chunks(1))
    assert [chunks[n] for n in range(len(chunks))] == [[3, 1], [6, 5]]


@pytest.mark.parametrize("content", [b"", b"whole"])
def test_a_full_disk_leaves_no_round_that_is_empty(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    """Without hard links the name is there before its content; a whole one is another resume's."""

    def full(path: Path, chunks: Any, again: bool) -> bool:
        path.write_bytes(content)
        raise DiskFullError(f"{path}: {os.strerror(errno.ENOSPC)}")

    monkeypatch.setattr(rounds, "write_chunks", full)
    with pytest.raises(DiskFullError):
        open_round(paths, 1, [5], 2, deterministic=False)
    assert paths.chunks(1).exists() == bool(content)


def test_a_chunk_that_was_done_since_the_look_stays_done(paths: RunPaths) -> None:
    claims = Claims(paths.round(0))
    claims.done(replace(claims.read_lease(1, 0)))
    rounds._close_chunk(paths, claims, 1, {0, 2}, False)
    assert (claims.list().closed, claims.kinds(1)) == (set(), (0, True))
