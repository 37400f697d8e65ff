"""Audit: what a trial did more often than once, from its claims and journals, against what may be.

What may be done twice (recomputed = whole records in all journals - N; journals that were deleted do not stand
there, so what was lost with them is counted apart). For each chunk of each round, over its leases 0, 1, ... g:

    records - accepted <= sum over g of cost(g), of each lease g that a lease g+1 (takeover or closing) superseded

cost(g) is 0 where the holder of g was dead before g+1 was made: all that is whole in its journal is named by g+1 and
never run again, so a killed rank costs only what it had in flight, samples without a record. It is 0 as well where
g+1 is a release, by the holder that drained or by the guard of one that died: nothing is in hand any more then, and
the release names all that the journal has. Where the holder still lived (stopped, or starved by a busy machine),
cost(g) is the number of samples that g+1 was to run: from there two ranks run the same rest. This is the right bound
because g+1 names what it found in g's journal, so the records of g are those named and late ones out of that rest.
With `deterministic` a chunk is redone as a whole: cost(g) is the chunk's size. Besides, a lease makes each sample
once and none that was counted before, nobody makes anything by a release, and a killed rank leaves at most one chunk
open (the dummy engine holds one sample at a time, and with `deterministic` a rank holds one chunk at a time), so it
has at most that chunk's rest in flight, or with `deterministic` that chunk to be redone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from benchmarks.chaos_life import Life
from hpcjobs.run_folder.journal.record import Record
from hpcjobs.run_folder.ledger.acceptance import Acceptance
from hpcjobs.run_folder.ledger.claims import Claims, Lease
from hpcjobs.run_folder.paths import RunPaths
from tests.runs import records_in


class Audit:
    """One run's books; `problems` says what is wrong with them. A journal of none of `lives` is of a rank that may
    have lived on."""

    def __init__(self, paths: RunPaths, lives: Iterable[Life], rows: int, deterministic: bool) -> None:
        self._paths, self._rows, self._deterministic = paths, rows, deterministic
        self._lives = {life.journal.name: life for life in lives}
        self._records: dict[tuple[str, int, int], list[Record]] = {}
        for path in paths.journals():
            for record in records_in(path):
                self._records.setdefault((path.name, record.chunk, record.generation), []).append(record)
        self._open = Counter[str]()
        self.problems, self.accepted = list[str](), Counter[int]()
        self.takeovers, self.releases = 0, 0
        self.recomputed = sum(map(len, self._records.values())) - rows

    def run(self) -> Audit:
        extra = sum(self._round(number) for number in self._paths.rounds())
        self._say(not self._records, f"records without a lease: {list(self._records)[:3]}")
        self._say(extra == self.recomputed, f"{extra} records are not accepted, but {self.recomputed} were made again")
        for journal, count in self._open.items():
            self._say(count == 1, f"{journal} was killed with {count} open chunks")
        return self

    def counts(self) -> Counter[str]:
        """The columns of the table that stand in the books."""
        return Counter(
            {
                "duplicated": sum(count - 1 for count in self.accepted.values()), "over bound": len(self.problems),
                "takeovers": self.takeovers, "releases": self.releases, "recomputed": self.recomputed,
            }
        )  # fmt: skip

    def _say(self, right: bool, problem: str) -> None:
        if not right:
            self.problems.append(problem)

    def _round(self, number: int) -> int:
        """Records of this round that are not accepted."""
        accepts = Acceptance(self._paths, number, self._rows)
        return sum(self._chunk(accepts, number, chunk) for chunk in range(len(accepts.chunks)))

    def _chunk(self, accepts: Acceptance, number: int, chunk: int) -> int:
        claims, members = Claims(self._paths.round(number)), set(accepts.chunks[chunk])
        leases = [claims.read_lease(chunk, generation) for generation in range(claims.kinds(chunk)[0] + 1)]
        made = [(lease.journal, record) for lease in leases for record in self._made(lease, members)]
        taken = [record.index for journal, record in made if accepts.accepts(journal, record)]
        self.accepted.update(taken)
        self.takeovers += sum(bool(lease.journal and taker.journal) for lease, taker in pairwise(leases))
        self.releases += sum(bool(lease.released) for lease in leases)
        self._count_open(claims, leases)
        extra, allowed = len(made) - len(taken), sum(self._costs(claims, leases, members))
        self._say(extra <= allowed, f"round {number} chunk {chunk}: {extra} records too many, {allowed} may be")
        return extra

    def _made(self, lease: Lease, members: set[int]) -> list[Record]:
        records = self._records.pop((lease.journal, lease.chunk, lease.generation), [])
        indexes = [record.index for record in records]
        right = len(set(indexes)) == len(indexes) and set(indexes) <= members - lease.counted
        self._say(right, f"{lease.journal} made {indexes} of chunk {lease.chunk} {sorted(members - lease.counted)}")
        return records

    def _costs(self, claims: Claims, leases: Sequence[Lease], members: set[int]) -> Iterator[int]:
        for lease, taker in pairwise(leases):
            free = _gave_back(lease, taker) or self._was_dead(claims, lease)
            if lease.journal and (self._deterministic or not free):
                yield len(members - taker.counted)

    def _was_dead(self, claims: Claims, lease: Lease) -> bool:
        """Whether a lease's holder was dead when the next generation was made."""
        taker, life = claims.folder / f"{lease.chunk}.{lease.generation + 1}", self._lives.get(lease.journal)
        return life is not None and life.dead_at(taker.stat().st_mtime_ns)

    def _count_open(self, claims: Claims, leases: Sequence[Lease]) -> None:
        """Chunks that a killed rank still held: by the end of a trial every one of them was superseded."""
        for lease in leases[:-1]:
            if lease.journal and self._was_dead(claims, lease) and not _is_done(claims, lease):
                self._open[lease.journal] += 1


def _gave_back(lease: Lease, taker: Lease) -> bool:
    """Whether the holder of `lease`, or its guard, released it."""
    return bool(taker.released) and (taker.attempt, taker.rank) == (lease.attempt, lease.rank)


def _is_done(claims: Claims, lease: Lease) -> bool:
    if not (claims.folder / f"{lease.chunk}.done").exists():
        return False
    verdict = claims.read_verdict(lease.chunk, "done")
    return (verdict.journal, verdict.generation) == (lease.journal, lease.generation)
