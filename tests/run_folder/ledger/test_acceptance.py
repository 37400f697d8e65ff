from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from hpcjobs.run_folder.journal.record import Record
from hpcjobs.run_folder.ledger.acceptance import Acceptance, read_rounds, unnamed_journals
from hpcjobs.run_folder.ledger.chunks import ChunkList, write_chunks
from hpcjobs.run_folder.ledger.claims import Claims, Former
from hpcjobs.run_folder.paths import RunPaths
from tests.runs import lease_of, record_of, round_by_hand, write_journal

CHUNKS = [[3, 1], [0], [4]]  # sample 2 is of another round
FORMER = (Former("a-9.jsonl", 0, (1,)),)


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    return round_by_hand(tmp_path, CHUNKS)


def accepted(paths: RunPaths, records: list[Record]) -> list[tuple[int, int, int]]:
    """(rank, generation, index) of the records that count."""
    found = Acceptance(paths, 0, 5)
    return [(r.rank, r.generation, r.index) for r in records if found.accepts(f"{r.attempt}-{r.rank}.jsonl", r)]


def both_samples(*holders: tuple[int, int]) -> list[Record]:
    return [record_of(index, 0, rank, generation=generation) for rank, generation in holders for index in CHUNKS[0]]


EVERYBODY = both_samples((0, 0), (1, 1), (9, 0), (1, 0), (0, 1))


def test_nothing_counts_of_a_chunk_that_nobody_claimed(paths: RunPaths) -> None:
    assert accepted(paths, EVERYBODY) == []
    found = Acceptance(paths, 0, 5)
    assert (found.unfinished, found.holder(0, 3), found.journals()) == ({0, 1, 2}, None, [])


def test_of_an_unfinished_chunk_its_highest_lease_counts(paths: RunPaths) -> None:
    claims = Claims(paths.round(0))
    claims.lease(lease_of(0, 0))
    assert accepted(paths, EVERYBODY) == [(0, 0, 3), (0, 0, 1)]
    claims.lease(lease_of(0, 1, generation=1, former=FORMER))
    assert accepted(paths, EVERYBODY) == [(1, 1, 3), (9, 0, 1)]
    assert 0 in Acceptance(paths, 0, 5).unfinished


def test_the_first_done_stands_against_a_higher_lease(paths: RunPaths) -> None:
    claims = Claims(paths.round(0))
    claims.lease(lease_of(0, 0))
    claims.lease(lease_of(0, 1, generation=1, former=FORMER))
    claims.done(lease_of(0, 0))
    claims.done(lease_of(0, 1, generation=1, former=FORMER))
    assert accepted(paths, EVERYBODY) == [(0, 0, 3), (0, 0, 1)]
    assert Acceptance(paths, 0, 5).unfinished == {1, 2}


def test_a_closing_stands_against_a_late_done(paths: RunPaths) -> None:
    claims = Claims(paths.round(0))
    claims.lease(lease_of(0, 0))
    closer = lease_of(0, attempt="closer", journal="", generation=1, former=FORMER)
    claims.lease(closer)
    assert accepted(paths, EVERYBODY) == [(9, 0, 1)], "closing has begun"
    claims.close(closer)
    claims.done(lease_of(0, 0))
    assert accepted(paths, EVERYBODY) == [(9, 0, 1)]
    found = Acceptance(paths, 0, 5)
    assert found.unfinished == {0, 1, 2}
    assert (found.holder(0, 1), found.holder(0, 3)) == ("a-9.jsonl", "a-0.jsonl")


def test_a_closed_chunk_that_nobody_had_begun_has_no_holder(paths: RunPaths) -> None:
    closer = lease_of(1, attempt="closer", journal="")
    Claims(paths.round(0)).lease(closer)
    Claims(paths.round(0)).close(closer)
    assert Acceptance(paths, 0, 5).holder(1, 0) is None


def test_the_holder_of_a_closed_chunk_is_the_last_that_had_a_journal(paths: RunPaths) -> None:
    claims = Claims(paths.round(0))
    claims.lease(lease_of(2, 3))
    claims.lease(lease_of(2, 3, generation=1, journal=""))  # given back
    closer = lease_of(2, attempt="closer", journal="", generation=2)
    claims.lease(closer)
    claims.close(closer)
    assert Acceptance(paths, 0, 5).holder(2, 4) == "a-3.jsonl"


@pytest.mark.parametrize("again", [True, False])
def test_only_a_round_that_runs_samples_again_replaces_what_earlier_ones_have(paths: RunPaths, again: bool) -> None:
    for number, chunks in enumerate([CHUNKS, [[1], [4]], [[4]]]):
        paths.round(number).mkdir(exist_ok=True)
        write_chunks(paths.chunks(number), chunks, again and number > 0)
        for chunk in range(len(chunks)):
            lease = lease_of(chunk, attempt="abc"[number])
            Claims(paths.round(number)).lease(lease)
            Claims(paths.round(number)).done(lease)
    first, second, third = read_rounds(paths, 5)
    assert [first.accepts("a-0.jsonl", record_of(index, chunk)) for index, chunk in ((3, 0), (1, 0), (0, 1), (4, 2))] \
        == [True, not again, True, not again]
    assert [second.accepts("b-0.jsonl", record_of(index, chunk)) for index, chunk in ((1, 0), (4, 1))] \
        == [True, not again]
    assert third.accepts("c-0.jsonl", record_of(4, 0))
    assert not first.accepts("a-0.jsonl", record_of(9, 0)), "a sample that the run does not have"


def test_the_first_round_replaces_nothing_whatever_it_says(paths: RunPaths) -> None:
    paths.chunks(0).unlink()
    write_chunks(paths.chunks(0), [[0]], again=True)
    Claims(paths.round(0)).lease(lease_of(0))
    (only,) = read_rounds(paths, 1)
    assert only.accepts("a-0.jsonl", record_of(0, 0))
    assert not only.accepts("a-0.jsonl", record_of(1, 0))


def test_of_a_closed_or_unclaimed_chunk_no_journal_counts_as_the_holder(paths: RunPaths) -> None:
    claims = Claims(paths.round(0))
    claims.lease(lease_of(2, 0))
    closer = lease_of(0, attempt="closer", journal="", former=(Former("a-5.jsonl", 0, (3,)),))
    claims.lease(closer)
    claims.close(closer)
    found = Acceptance(paths, 0, 5)
    assert found.journals() == ["a-0.jsonl", "a-5.jsonl"]
    records = [record_of(3, 0), record_of(1, 0), record_of(0, 1), record_of(4, 2)]
    assert [found.accepts("a-0.jsonl", record) for record in records] == [False, False, False, True]
    assert [found.accepts("a-5.jsonl", record) for record in records] == [True, False, False, False]
    assert not any(found.accepts("closer", record) or found.accepts("", record) for record in records)


def test_a_chunk_that_nobody_claimed_is_no_journals(paths: RunPaths) -> None:
    held = tuple(Former(f"a-{rank}.jsonl", 0, (index,)) for rank, index in ((7, 3), (8, 1)))
    Claims(paths.round(0)).lease(lease_of(0, 9, generation=2, former=held))
    found = Acceptance(paths, 0, 5)
    assert found.journals() == ["a-7.jsonl", "a-8.jsonl", "a-9.jsonl"]
    assert not any(found.accepts(name, record_of(0, 1)) for name in found.journals())


def test_what_an_earlier_holder_had_done_counts_in_its_chunk_and_until_it_is_run_again(paths: RunPaths) -> None:
    Claims(paths.round(0)).lease(lease_of(0, 1, generation=1, former=FORMER))
    found = Acceptance(paths, 0, 5)
    assert found.accepts("a-9.jsonl", record_of(1, 0, 9))
    assert not found.accepts("a-9.jsonl", record_of(1, 7, 9)), "there is no chunk 7"
    assert not found.accepts("a-9.jsonl", record_of(1, 2, 9)), "it is not in chunk 2"
    found.superseded_by(ChunkList(np.array([1]), np.array([0, 1])))
    assert not found.accepts("a-9.jsonl", record_of(1, 0, 9))
    assert found.accepts("a-1.jsonl", record_of(3, 0, 1, generation=1))


def test_claims_of_chunks_that_the_round_does_not_have_are_nothing(paths: RunPaths) -> None:
    for chunk in (0, 3, 77):
        Claims(paths.round(0)).lease(lease_of(chunk))
    found = Acceptance(paths, 0, 5)
    assert [found.accepts("a-0.jsonl", record_of(3, chunk)) for chunk in (0, 3, 77)] == [True, False, False]


def held_bytes(paths: RunPaths, rows: int) -> int:
    tracemalloc.start()
    try:
        found = Acceptance(paths, 0, rows)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert found.chunk_of(7) == 0
    return held


def test_memory_is_of_what_a_round_has(tmp_path: Path) -> None:
    """A few bytes a sample of the round; nothing for the million that a resume of ten does not run."""
    few, all_of_it = RunPaths(tmp_path / "few"), RunPaths(tmp_path / "all")
    for paths, samples in ((few, range(10)), (all_of_it, range(200_000))):
        paths.round(0).mkdir(parents=True)
        write_chunks(paths.chunks(0), [samples])
    assert held_bytes(few, 1_000_000) < 200_000
    assert held_bytes(all_of_it, 200_000) < 10 * 200_000


def test_records_that_do_not_fit_the_layout_do_not_count(paths: RunPaths) -> None:
    claims = Claims(paths.round(0))
    for chunk in range(3):
        claims.lease(lease_of(chunk))
        claims.done(lease_of(chunk))
    strangers = [record_of(3, 1), record_of(2, 0), record_of(-1, 0), record_of(5, 0), record_of(0, 7), record_of(2, -1)]
    assert accepted(paths, strangers) == []
    assert accepted(paths, [record_of(0, 1)]) == [(0, 0, 0)]
    assert not Acceptance(paths, 0, 5).accepts("b-0.jsonl", record_of(0, 1))
    found = Acceptance(paths, 0, 5)
    assert [found.chunk_of(index) for index in range(5)] == [1, 0, None, 0, 2]


def test_journals_that_count_and_those_that_do_not(paths: RunPaths) -> None:
    Claims(paths.round(0)).done(lease_of(0, 1, generation=1, former=FORMER))
    Claims(paths.round(0)).lease(lease_of(0, 1, generation=1, former=FORMER))
    for rank in (1, 3, 9):
        write_journal(paths, [record_of(1, 0, rank)], f"a-{rank}.jsonl")
    write_journal(paths, [], "a-4.jsonl")  # a rank that came too late to get anything
    journals = Acceptance(paths, 0, 5).journals()
    assert journals == ["a-1.jsonl", "a-9.jsonl"]
    assert [path.name for path in unnamed_journals(paths, set(journals))] == ["a-3.jsonl"]


@pytest.mark.parametrize("rows", [20, 2000])
def test_a_round_over_few_of_many_rows_answers_like_one_over_all(tmp_path: Path, rows: int) -> None:
    """Dense or sorted inside: the same answers, for one record and for many."""
    paths = RunPaths(tmp_path)
    paths.round(0).mkdir(parents=True)
    write_chunks(paths.chunks(0), [[19, 4], [7]])
    claims = Claims(paths.round(0))
    for chunk in (0, 1):
        claims.lease(lease_of(chunk))
        claims.done(lease_of(chunk))
    found = Acceptance(paths, 0, rows)
    indexes = np.array([19, 4, 7, 7, 5, 0, rows - 1, -1, rows, 4])
    chunks = np.array([0, 0, 1, 0, 0, 1, 1, 0, 1, -1])
    counts = found.counting("a-0.jsonl", indexes, chunks, np.zeros(10, np.int64))
    assert counts.tolist() == [True, True, True] + [False] * 3 + [False] * 4
    assert [found.chunk_of(int(n)) for n in (19, 7, 5)] == [0, 1, None]
    assert not found.counting("a-1.jsonl", indexes, chunks, np.zeros(10, np.int64)).any()
    assert not found.counting("a-0.jsonl", indexes, chunks, np.ones(10, np.int64)).any()


def test_a_round_without_chunks_accepts_nothing(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    paths.round(0).mkdir(parents=True)
    write_chunks(paths.chunks(0), [])
    found = Acceptance(paths, 0, 5)
    assert not found.accepts("a-0.jsonl", record_of(0, 0))
    assert (found.journals(), found.chunk_of(0), found.unfinished) == ([], None, set())
