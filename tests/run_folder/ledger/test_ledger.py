from __future__ import annotations

import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hpcjobs.distributed.rank import Rank
from hpcjobs.run_folder.heartbeat import Heartbeat, Vitals
from hpcjobs.run_folder.ledger.chunks import ChunkList
from hpcjobs.run_folder.ledger.claims import Claims, Former, Lease, Listing
from hpcjobs.run_folder.ledger.ledger import Ledger, Rules
from hpcjobs.run_folder.ledger.takeover import LeaseWatch, release, whole_samples
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity, process_start
from tests.runs import (
    Ranks,
    lease_of,
    missing_lines,
    next_round,
    outcome,
    plan_run,
    record_of,
    records_in,
    round_by_hand,
    run_ranks,
    undisturbed,
    wait_for,
    write_journal,
)

CHUNKS = [[0, 1], [2, 3], [4], [5], [6], [7], [8]]
ROWS, SLOW = 97, {"engine": "dummy", "dummy_delay": 0.01}


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    """A run folder with seven chunks and nothing else."""
    return round_by_hand(tmp_path, CHUNKS)


def ledger(paths: RunPaths, rank: int, world: int, rules: Rules = Rules(), timeout: float = 60.0) -> Ledger:  # noqa: B008
    watch = LeaseWatch(paths.heartbeats, rank_of(rank, world).succeeds, timeout)
    chunks = ChunkList.read(paths.chunks(0))
    return Ledger(Claims(paths.round(0)), chunks, lease_of(0, rank), watch, (rank, world), rules)


def rank_of(rank: int, world: int, attempt: str = "a", launcher: str = "torchrun") -> Rank:
    return Rank(
        rank=rank,
        world_size=world,
        local_rank=rank,
        local_world_size=world,
        node=0,
        attempt=attempt,
        launcher=launcher,
        host="here",
    )


def ended_process() -> Identity:
    """The identity of a process of this machine that is over."""
    process = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    identity = replace(Identity.own(), pid=process.pid, started=process_start(process.pid) or "0")
    process.communicate()
    return identity


def claimed(book: Ledger) -> list[int]:
    """Every chunk that a ledger gives without any being settled."""
    found: list[int] = []
    while lease := book.claim():
        found.append(lease.chunk)
        assert len(found) <= len(CHUNKS), "it gives chunks without end"
    return found


def test_a_rank_walks_its_own_stride_first_then_takes_what_is_free(paths: RunPaths) -> None:
    chunks = claimed(ledger(paths, 1, 3))
    assert chunks[:2] == [1, 4]
    assert sorted(chunks) == list(range(len(CHUNKS)))


@pytest.mark.parametrize(
    ("rank", "world", "stride"), [(0, 3, [0, 3, 6]), (2, 3, [2, 5]), (0, 1, list(range(7))), (8, 9, [])]
)
def test_static_is_the_first_walk_alone(paths: RunPaths, rank: int, world: int, stride: list[int]) -> None:
    book = ledger(paths, rank, world, Rules(static=True))
    assert claimed(book) == stride
    assert book.over() == (not stride)
    for chunk in stride:
        assert book.done(lease_of(chunk, rank))
    assert book.over()


def test_two_ranks_never_get_the_same_chunk(paths: RunPaths) -> None:
    books = [ledger(paths, rank, 2) for rank in range(2)]
    found = [lease.chunk for _ in range(5) for book in books if (lease := book.claim())]
    assert sorted(found) == list(range(len(CHUNKS)))


def test_it_is_over_when_all_is_settled_by_whomever(paths: RunPaths) -> None:
    book, claims = ledger(paths, 0, 2), Claims(paths.round(0))
    taken = claimed(book)
    assert not book.over()
    for chunk in taken[:-1]:
        assert book.done(lease_of(chunk, 0))
    claims.close(lease_of(taken[-1], 1))
    assert book.claim() is None
    assert book.over()


def test_the_second_to_finish_a_chunk_has_worked_in_vain(paths: RunPaths) -> None:
    lease = ledger(paths, 0, 1).claim()
    assert lease
    assert ledger(paths, 1, 2).done(replace(lease, rank=1, journal="a-1.jsonl"))
    assert not ledger(paths, 0, 1).done(lease)
    assert Claims(paths.round(0)).read_verdict(lease.chunk, "done").journal == "a-1.jsonl"


def test_the_lease_of_a_dead_process_is_taken_over_with_its_whole_samples(paths: RunPaths) -> None:
    dead = lease_of(0, 1, identity=ended_process())
    Claims(paths.round(0)).lease(dead)
    write_journal(paths, [record_of(1, 0, 1)], "a-1.jsonl")
    book = ledger(paths, 0, 2)
    leases = {lease.chunk: lease for _ in CHUNKS if (lease := book.claim())}
    assert leases[0].generation == 1
    assert leases[0].former == (Former("a-1.jsonl", 0, (1,)),)
    assert book.todo(leases[0]) == [0]
    assert book.todo(leases[1]) == [2, 3]


def test_with_deterministic_a_takeover_starts_the_chunk_anew(paths: RunPaths) -> None:
    Claims(paths.round(0)).lease(lease_of(0, 1, identity=ended_process()))
    write_journal(paths, [record_of(1, 0, 1)], "a-1.jsonl")
    book = ledger(paths, 0, 2, Rules(deterministic=True))
    leases = {lease.chunk: lease for _ in CHUNKS if (lease := book.claim())}
    assert (leases[0].generation, leases[0].former, book.todo(leases[0])) == (1, (), [0, 1])


def test_a_rank_does_not_take_over_from_itself(paths: RunPaths) -> None:
    book = ledger(paths, 0, 1, timeout=1e-9)
    assert len(claimed(book)) == len(CHUNKS)
    assert book.claim() is None
    assert book.claim() is None


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def beat(paths: RunPaths, lease: Lease) -> None:
    values = Vitals(
        rank=lease.rank, attempt=lease.attempt, host="there", world_size=2, identity=lease.identity.values()
    )
    with Heartbeat(paths.heartbeat(lease.attempt, lease.rank), values, 60):
        pass


def test_silence_is_measured_from_the_first_look_by_the_watchers_own_clock(paths: RunPaths) -> None:
    clock, far = Clock(), lease_of(0, 1, identity=replace(Identity.own(), machine="another"))
    watch = LeaseWatch(paths.heartbeats, rank_of(0, 2).succeeds, 10.0, clock)
    beat(paths, far)
    clock.now = 1000.0
    assert not watch.lost(far)
    clock.now = 1009.0
    assert not watch.lost(far)
    beat(paths, far)
    clock.now = 1018.0
    assert not watch.lost(far), "it has beaten since"
    clock.now = 1028.0
    assert not watch.lost(far)
    clock.now = 1028.1
    assert watch.lost(far)
    beat(paths, far)
    assert not watch.lost(far), "it has come back"


def test_a_rank_that_never_beat_is_lost_after_the_timeout(paths: RunPaths) -> None:
    clock, far = Clock(), lease_of(0, 1, identity=replace(Identity.own(), machine="another"))
    watch = LeaseWatch(paths.heartbeats, rank_of(0, 2).succeeds, 10.0, clock)
    assert not watch.lost(far)
    clock.now = 10.5
    assert watch.lost(far)


@pytest.mark.parametrize(
    ("ours", "theirs", "lost"),
    [("77.1.0", "77.0.0", True), ("77.0.0", "77.0.0", False), ("77.0.0", "77.1.0", False), ("78.1.0", "77.0.0", False)],
)
def test_an_earlier_start_of_the_same_slurm_job_is_lost_at_once(
    paths: RunPaths, ours: str, theirs: str, lost: bool
) -> None:
    far = lease_of(0, 1, theirs, identity=replace(Identity.own(), machine="another"))
    watch = LeaseWatch(paths.heartbeats, rank_of(0, 2, ours, "slurm").succeeds, 1000.0)
    assert watch.lost(far) == lost


def test_only_whole_records_of_the_lease_count(paths: RunPaths) -> None:
    lease = lease_of(0, 1, generation=1, former=(Former("a-2.jsonl", 0, (1,)),))
    strangers = [record_of(4, 2, 1), record_of(0, 0, 1, generation=0), record_of(9, 0, 1, generation=1)]
    own = [record_of(index, 0, 1, generation=1) for index in (0, 1, 0)]
    path = write_journal(paths, [*strangers, *own], "a-1.jsonl")
    assert whole_samples(lease, paths.ranks, {0, 1}) == (*lease.former, Former("a-1.jsonl", 1, (0,)))
    path.write_bytes(b"".join(record.line() for record in strangers) + own[0].line()[:-1])
    assert whole_samples(lease, paths.ranks, {0, 1}) == lease.former


@pytest.mark.parametrize("content", [None, record_of(0, 0, 1).line() + b"broken\n" + record_of(1, 0, 1).line()])
def test_a_journal_that_is_gone_or_broken_counts_nothing(paths: RunPaths, content: bytes | None) -> None:
    if content is not None:
        (paths.ranks / "a-1.jsonl").write_bytes(content)
    assert whole_samples(lease_of(0, 1), paths.ranks, {0, 1}) == ()


def test_of_a_closer_that_died_its_former_samples_count(paths: RunPaths) -> None:
    former = (Former("a-2.jsonl", 0, (1,)),)
    assert whole_samples(lease_of(0, journal="", former=former), paths.ranks, {0, 1}) == former


def test_a_chunk_that_is_given_back_is_free_at_once_with_what_counts(paths: RunPaths) -> None:
    elsewhere = replace(Identity.own(), machine="another")
    lease = lease_of(0, 1, identity=elsewhere)
    claims = Claims(paths.round(0))
    assert claims.lease(lease)
    assert ledger(paths, 0, 2, timeout=1e9).claim() is not None
    ledger(paths, 1, 2).release(lease, [1], "drained: the end", [0])
    book = ledger(paths, 0, 2, timeout=1e9)
    leases = {taken.chunk: taken for _ in CHUNKS if (taken := book.claim())}
    assert (leases[0].generation, leases[0].former) == (2, (Former("a-1.jsonl", 0, (1,)),))
    assert (leases[0].suspects, leases[0].released, leases[0].journal) == ((0,), "", "a-0.jsonl")
    assert book.todo(leases[0]) == [0]


def test_suspects_and_what_counts_add_up_from_holder_to_holder(paths: RunPaths) -> None:
    claims, lease = Claims(paths.round(0)), lease_of(0, 1)
    assert claims.lease(lease)
    assert release(claims, lease, [1], "hung", [0])
    second = replace(claims.read_lease(0, 1), generation=2, journal="a-2.jsonl", released="")
    assert claims.lease(second)
    assert release(claims, second, [], "hung", [0])
    last = claims.read_lease(0, 3)
    assert (last.suspects, last.former) == ((0, 0), (Former("a-1.jsonl", 0, (1,)),))
    assert whole_samples(last, paths.ranks, {0, 1}) == last.former


def test_what_others_have_taken_cannot_be_given_back(paths: RunPaths) -> None:
    claims, lease = Claims(paths.round(0)), lease_of(0, 1)
    assert claims.lease(lease)
    assert claims.lease(lease_of(0, 2, generation=1))
    assert not release(claims, lease, [0, 1], "late")
    assert claims.read_lease(0, 1).rank == 2


def test_with_deterministic_nothing_of_what_is_given_back_counts(paths: RunPaths) -> None:
    book = ledger(paths, 0, 1, Rules(deterministic=True))
    lease = book.claim()
    assert lease
    book.release(lease, [1], "drained")
    assert Claims(paths.round(0)).read_lease(lease.chunk, 1).former == ()


def test_whether_a_chunk_is_still_ours_is_asked_of_its_own_files(paths: RunPaths) -> None:
    book, claims = ledger(paths, 0, 2), Claims(paths.round(0))
    leases = {lease.chunk: lease for _ in range(4) if (lease := book.claim())}
    first, second, third, *_ = leases.values()
    assert not any(book.superseded(lease) for lease in leases.values())
    claims.lease(lease_of(first.chunk, 1, generation=1))
    claims.done(lease_of(second.chunk, 1))
    claims.close(lease_of(third.chunk, 1))
    assert [book.superseded(lease) for lease in leases.values()] == [True, True, True, False]


def test_what_is_left_is_known_in_chunks_and_samples(paths: RunPaths) -> None:
    book = ledger(paths, 0, 1)
    assert (book.samples_left(), book.near_end(1), book.near_end(2)) == (9, False, True)
    leases = [lease for _ in range(2) if (lease := book.claim())]
    assert not book.near_end(1), "five chunks are left of its walk"
    leases += [lease for _ in range(1) if (lease := book.claim())]
    assert [lease.chunk for lease in leases] == [0, 1, 2]
    assert book.near_end(1), "four chunks are left of its walk: a batch of one is better than more"
    assert book.samples_left() == 9, "in progress is not done"
    assert book.done(leases[1])
    assert (book.samples_left(), book.over()) == (7, False)


def test_a_chunk_that_was_leased_before_is_not_walked_to(paths: RunPaths) -> None:
    Claims(paths.round(0)).lease(lease_of(0, 7, identity=replace(Identity.own(), machine="another")))
    book, claims = counted(paths, 0, 1, [0.0])
    assert claimed(book) == [1, 2, 3, 4, 5, 6]
    assert claims.attempts == 6, "it tried to lease what it had seen leased"


def test_claims_of_chunks_that_the_round_does_not_have_are_nothing_to_a_rank(paths: RunPaths) -> None:
    claims = Claims(paths.round(0))
    for chunk in (len(CHUNKS), 99):
        claims.lease(lease_of(chunk, 7))
        claims.done(lease_of(chunk, 7))
    claims.close(lease_of(len(CHUNKS), 7))
    book = ledger(paths, 0, 1)
    assert (claimed(book), book.samples_left()) == (list(range(len(CHUNKS))), 9)


def test_a_lease_that_was_given_back_with_its_reason_says_so_and_a_lost_one_too(
    paths: RunPaths, caplog: pytest.LogCaptureFixture
) -> None:
    claims = Claims(paths.round(0))
    claims.lease(lease_of(0, 1, generation=0, journal="", released="drained: the end", suspects=(1, 1)))
    claims.lease(lease_of(1, 2, identity=ended_process(), suspects=(3,)))
    with caplog.at_level("INFO"):
        book = ledger(paths, 0, 9)
        leases = {lease.chunk: lease for _ in CHUNKS if (lease := book.claim())}
    assert [(leases[chunk].generation, leases[chunk].suspects) for chunk in (0, 1)] == [(1, (1, 1)), (1, (3,))]
    assert "took chunk 0, which rank 1 of attempt a on here gave back: drained: the end" in caplog.text
    assert "took over chunk 1 from rank 2 of attempt a on here: lost" in caplog.text


def test_in_a_static_run_nothing_is_taken_over(paths: RunPaths) -> None:
    Claims(paths.round(0)).lease(lease_of(1, 1, identity=ended_process()))
    book = ledger(paths, 0, 2, Rules(static=True))
    assert claimed(book) == [0, 2, 4, 6]


# From here on: real ranks and real signals.


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("killed", [(1,), (0, 2)], ids=["one", "all but one"])
def test_what_a_killed_rank_held_is_taken_over_at_once(ram: Path, killed: tuple[int, ...], deterministic: bool) -> None:
    rules = {"heartbeat": 0.2, "chunk_size": 4, "deterministic": deterministic}  # lease_timeout stays at 2 minutes
    paths = plan_run(ram / "run", ROWS, model=SLOW, run=rules)
    survivors = [rank for rank in range(3) if rank not in killed]
    with Ranks(paths, 3) as ranks:
        ranks.start(*killed)
        held = {rank: ranks.stop_inside_chunk(rank) for rank in killed}
        ranks.start(*survivors)
        for rank in survivors:
            ranks.wait_for_record(rank)
        for rank in killed:
            ranks.signal(rank, signal.SIGKILL)
        assert ranks.finish(*killed) == [-signal.SIGKILL] * len(killed)
        assert ranks.finish(*survivors) == [0] * len(survivors)
    for rank, chunk in held.items():
        lease = Claims(paths.round(0)).read_lease(chunk, 1)
        whole = [record.index for record in records_in(paths.journal("a", rank)) if record.chunk == chunk]
        assert lease.rank in survivors
        assert whole
        assert lease.former == (() if deterministic else (Former(f"a-{rank}.jsonl", 0, tuple(whole)),))
        made = [r.index for r in records_in(paths.ranks / lease.journal) if r.chunk == chunk]
        members = ChunkList.read(paths.chunks(0))[chunk]
        assert sorted(made) == sorted(set(members) - lease.counted)
    merged, content, values = outcome(paths)
    assert merged.complete
    assert (content, values) == undisturbed(ROWS)
    all_records = [record for path in paths.journals() for record in records_in(path)]
    redone = sum(held.get(record.rank) == record.chunk for record in all_records) if deterministic else 0
    assert len(all_records) == ROWS + redone, "more was run twice than what was lost"


def test_a_stopped_rank_that_wakes_up_changes_nothing(ram: Path) -> None:
    paths = plan_run(ram / "run", ROWS, model=SLOW, run={"heartbeat": 0.1, "lease_timeout": 0.6, "chunk_size": 4})
    with Ranks(paths, 3) as ranks:
        ranks.start(1)
        chunk = ranks.stop_inside_chunk(1)
        ranks.start(0, 2)
        assert ranks.finish(0, 2) == [0, 0]
        claims = Claims(paths.round(0))
        verdict, before = claims.read_verdict(chunk, "done"), len(records_in(ranks.journal(1)))
        assert verdict.journal in ("a-0.jsonl", "a-2.jsonl")
        assert outcome(paths)[0].complete, "the others did not need it"
        first = paths.results.read_bytes()
        ranks.signal(1, signal.SIGCONT)
        assert ranks.finish(1) == [0]
    assert claims.read_verdict(chunk, "done") == verdict
    assert len(records_in(ranks.journal(1))) > before, "it made nothing after it woke up: nothing was shown"
    merged, content, values = outcome(paths)
    assert merged.complete
    assert content == first
    assert (content, values) == undisturbed(ROWS)


@pytest.mark.parametrize("new_round", [True, False], ids=["resume", "same round"])
def test_static_shards_are_finished_by_another_number_of_ranks(ram: Path, new_round: bool) -> None:
    static = {"heartbeat": 0.2, "chunk_size": 4, "sharding": "static"}
    paths = plan_run(ram / "run", ROWS, model=SLOW, run=static)
    with Ranks(paths, 3) as ranks:
        ranks.start(0, 1, 2)
        ranks.stop_inside_chunk(1)
        ranks.signal(1, signal.SIGKILL)
        assert ranks.finish(0, 2) == [0, 0]
    made = {record.index for path in paths.journals() for record in records_in(path)}
    assert len(made) < ROWS, "the others did not keep to their own shards"
    merged, _, values = outcome(paths)
    assert set(missing_lines(paths)) == set(merged.missing) == set(range(ROWS)) - made
    assert (values["complete"], values["counts"]["accepted"]) == (False, len(made))
    if new_round:
        next_round(paths)
    run_ranks(paths, 2, "b")
    merged, content, values = outcome(paths)
    assert merged.complete
    assert (content, values) == undisturbed(ROWS)
    again = {record.index for rank in range(2) for record in records_in(paths.journal("b", rank))}
    assert again == set(range(ROWS)) - made, "finished samples were run again"


def test_a_second_start_of_the_same_rank_is_refused_and_harms_nothing(ram: Path) -> None:
    paths = plan_run(ram / "run", ROWS, model=SLOW)
    with Ranks(paths, 1) as first, Ranks(paths, 1) as second:
        first.start(0)
        first.wait_for_record(0)
        second.start(0)
        assert second.finish(0) == [1]
        assert first.finish(0) == [0]
    wait_for(lambda: "another process is this rank" in paths.rank_log("a", 0).read_text(), "the reason in the log")
    assert outcome(paths)[1:] == undisturbed(ROWS)


def test_claims_that_were_created_and_never_written_stop_nobody(ram: Path) -> None:
    """Without hard links a creator may die between creating and writing: its empty claim is nobody's."""
    paths = plan_run(ram / "run", ROWS, run={"heartbeat": 0.1, "lease_timeout": 0.5})
    (paths.round(0) / "3.0").touch()
    run_ranks(paths, 2)
    assert outcome(paths)[0].complete
    assert Claims(paths.round(0)).read_verdict(3, "done").generation == 1
    (paths.round(0) / "5.done").unlink()
    (paths.round(0) / "5.done").touch()  # as if its writer had died there, all its samples journalled
    merged, content, values = outcome(paths)
    assert merged.complete
    assert (content, values) == undisturbed(ROWS)


def wide(tmp_path: Path, chunks: int) -> RunPaths:
    """A round of `chunks` chunks of one sample."""
    return round_by_hand(tmp_path, [[number] for number in range(chunks)])


class Counted(Claims):
    """Real claims that count the looks into the folder and the attempts to create."""

    looks, attempts = 0, 0

    def list(self) -> Listing:
        self.looks += 1
        return super().list()

    def lease(self, lease: Lease) -> bool:
        self.attempts += 1
        return super().lease(lease)


def counted(paths: RunPaths, rank: int, world: int, clock: list[float]) -> tuple[Ledger, Counted]:
    claims = Counted(paths.round(0))
    watch = LeaseWatch(paths.heartbeats, rank_of(rank, world).succeeds, 1e9, lambda: clock[0])
    return Ledger(claims, ChunkList.read(paths.chunks(0)), lease_of(0, rank), watch, (rank, world), Rules()), claims


def test_a_rank_that_others_were_quicker_than_tries_few_chunks_before_it_looks_again(tmp_path: Path) -> None:
    paths = wide(tmp_path, 400)
    book, claims = counted(paths, 1, 400, [0.0])
    assert book.claim() is not None
    assert book.claim() is not None  # of what it saw free
    for chunk in range(399):
        Claims(paths.round(0)).lease(lease_of(chunk, 7))
    attempts, looks = claims.attempts, claims.looks
    lease = book.claim()
    assert lease is not None
    assert lease.chunk == 399
    assert (claims.attempts, claims.looks) == (attempts + 1, looks + 1)


def test_what_is_free_is_taken_about_as_planned_longest_first(tmp_path: Path) -> None:
    taken = claimed_of(ledger(wide(tmp_path, 400), 500, 501))
    assert sorted(taken) == list(range(400))
    assert taken != sorted(taken), "ranks that look at the same time do not all go for the same chunk"


def claimed_of(book: Ledger) -> list[int]:
    found = []
    while lease := book.claim():
        found.append(lease.chunk)
    return found


def test_the_longest_come_first_where_there_are_more_chunks_than_takers(tmp_path: Path) -> None:
    taken = claimed_of(ledger(wide(tmp_path, 640), 639, 640))[1:]
    assert sorted(taken) == list(range(639))
    taken = claimed_of(ledger(wide(tmp_path / "few", 640), 700, 10))
    windows = [sorted(taken[start : start + 64]) for start in range(0, 640, 64)]
    assert windows == [list(range(start, start + 64)) for start in range(0, 640, 64)]


@pytest.mark.parametrize(("chunks", "pauses"), [(20, False), (1500, True)])
def test_a_large_folder_is_not_listed_again_and_again(tmp_path: Path, chunks: int, pauses: bool) -> None:
    paths, clock = wide(tmp_path, chunks), [0.0]
    others = Claims(paths.round(0))
    for chunk in range(chunks):
        others.lease(lease_of(chunk, 7))
        if chunk:
            others.done(lease_of(chunk, 7))
    book, claims = counted(paths, 0, 2, clock)
    for _ in range(100):
        assert book.claim() is None
    assert claims.looks == (2 if pauses else 101)
    for _ in range(20):
        clock[0] += 40.0
        assert book.claim() is None
    assert claims.looks == (22 if pauses else 121)
    others.done(lease_of(0, 7))
    assert not book.over()
    clock[0] += 40.0
    assert book.claim() is None
    assert book.over()


@pytest.mark.parametrize(
    ("entries", "looks_in_vain", "pause"),
    [
        (2047, 100, 0.0), (2048, 4, 2.048), (4000, 1, 1.0), (4000, 2, 2.0), (4000, 4, 4.0), (4000, 9, 4.0),
        (30_000, 4, 30.0), (90_000, 8, 30.0), (90_000, 0, 0.0),
    ],
)  # fmt: skip
def test_the_pause_grows_with_the_folder_and_with_looks_in_vain(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch, entries: int, looks_in_vain: int, pause: float
) -> None:
    drawn = list[tuple[float, float]]()
    monkeypatch.setattr(random, "uniform", lambda low, high: drawn.append((low, high)) or 1.0)  # type: ignore[func-returns-value]
    book = ledger(paths, 0, 1)
    book._entries, book._in_vain = entries, looks_in_vain
    assert book._pause() == pytest.approx(pause)
    assert drawn in ([], [(0.75, 1.25)]), "ranks do not all look at once"


def test_looks_in_vain_are_those_since_a_rank_last_got_a_chunk(paths: RunPaths) -> None:
    claims = Claims(paths.round(0))
    for chunk in range(1, len(CHUNKS)):
        claims.lease(lease_of(chunk, 7, identity=replace(Identity.own(), machine="another")))
    claims.done(lease_of(1, 7))
    claims.close(lease_of(2, 7))
    book = ledger(paths, 1, 2, timeout=1e9)
    assert book._entries == len(CHUNKS) - 1 + 2, "leases, and what is done or closed"
    book._in_vain = 5
    assert book.claim() is not None, "chunk 0 is free"
    assert book._in_vain == 0
    for count in (1, 2):
        assert book.claim() is None
        assert book._in_vain == count
    claims.lease(lease_of(3, 7, generation=1, released="given back"))
    assert book.claim() is not None
    assert book._in_vain == 0


def test_idle_ranks_share_the_watch_and_forget_no_chunk(tmp_path: Path) -> None:
    """Each chunk that others hold is watched by some of many idle ranks; after many looks in vain by each of them."""
    paths, world, held = wide(tmp_path, 40), 240, list(range(40))
    books = [counted(paths, rank, world, [0.0])[0] for rank in range(40, world)]
    watched = [set(book._watched(held)) for book in books]
    assert sum(map(len, watched)) < 0.1 * len(books) * len(held)
    assert len(set().union(*watched)) > 0.9 * len(held)
    assert [set(book._watched(held)) for book in books] == watched, "always the same: silence shows between two looks"
    assert all(set(book._watched(held[:16])) == set(held[:16]) for book in books), "a few are watched by all"
    for book in books:
        book._in_vain = world
        assert sorted(book._watched(held)) == held


@pytest.mark.parametrize("world", [50, 100, 101])
def test_a_lost_lease_is_found_among_many_that_are_held(tmp_path: Path, world: int) -> None:
    """The only idle rank looks at everything, however much it is; also where more chunks are held than ranks were."""
    paths = wide(tmp_path, 100)
    for chunk in range(100):
        holder = ended_process() if chunk == 60 else Identity("elsewhere", 1, "1")
        Claims(paths.round(0)).lease(lease_of(chunk, chunk, identity=holder))
    lease = ledger(paths, 0, world).claim()
    assert lease is not None
    assert (lease.chunk, lease.generation) == (60, 1)
