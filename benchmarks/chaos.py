"""Random faults against the ledger: real files, real rank processes and signals, no Slurm, the dummy engine.

    python benchmarks/chaos.py --trials N [--seed S] [--first K] [--keep] [--verbose]

A trial is a run of random size, chunks, delay and rules. While its ranks work, at random times: SIGKILL of one,
several or all ranks, some with a torn last line; SIGSTOP past the lease timeout and a later SIGCONT, some only after
the merge; ranks of a new attempt that join the round, as a requeue does; resumes with another world size, beside
stopped and at times working ranks of the old round, with or without the loss of a dead rank's journal. Then it goes
to its end undisturbed. Results must be complete, and bytes, metrics and counts those of a run that nothing happened
to; merging twice, and once more after stopped ranks woke, gives the same.

What may be done twice (recomputed = whole records in all journals - N; journals that were deleted do not stand
there, so what was lost with them is counted apart). For each chunk of each round, over its leases 0, 1, ... g:

    records - accepted <= sum over g of cost(g), of each lease g that a lease g+1 (takeover or closing) superseded

cost(g) is 0 where the holder of g was dead before g+1 was made: all that is whole in its journal is named by g+1 and
never run again, so a killed rank costs only what it had in flight, samples without a record. Where the holder still
lived (stopped, or starved by a busy machine), cost(g) is the number of samples that g+1 was to run: from there two
ranks run the same rest. This is the right bound because g+1 names what it found in g's journal, so the records of g
are those named and late ones out of that rest. With `deterministic` a chunk is redone as a whole: cost(g) is the
chunk's size. Besides, a lease makes each sample once and none that was counted before, and a killed rank leaves at
most one chunk open (the dummy engine holds one sample at a time), so it has at most that chunk's rest in flight, or
with `deterministic` that chunk to be redone.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import random
import secrets
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path

from hpcjobs.acceptance import Acceptance
from hpcjobs.claims import Claims, Lease
from hpcjobs.files import read_json
from hpcjobs.journal import journal_lines
from hpcjobs.merge import merge
from hpcjobs.paths import RunPaths
from hpcjobs.records import Record
from hpcjobs.rounds import close_round, open_round
from tests.runs import (
    MEMORY,
    finish,
    outcome,
    plan_run,
    process_state,
    rank_env,
    rank_main,
    records_in,
    start_process,
    undisturbed,
    wait_for,
)

LEASE_TIMEOUT, HEARTBEAT, SECOND = 0.5, 0.1, 10**9
COLUMNS = (
    "trials", "lost", "duplicated", "wrong", "over bound", "kills", "stops", "takeovers", "joins", "resumes", "torn",
    "deleted", "recomputed",
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """What a trial runs."""

    rows: int
    chunk_size: int
    delay: float
    static: bool
    deterministic: bool

    @classmethod
    def draw(cls, rng: random.Random, work: float) -> Setting:
        """At most about `work` seconds of one rank: long enough for faults to meet it."""
        rows = rng.choice((rng.randint(0, 200), rng.randint(120, 200)))
        delay = min(0.3, rng.uniform(work / 12, work) / max(rows, 1))
        return cls(rows, rng.choice((1, 2, 4, 8)), delay, rng.random() < 0.2, rng.random() < 0.3)

    def plan(self, folder: Path) -> RunPaths:
        rules = {
            "heartbeat": HEARTBEAT, "lease_timeout": LEASE_TIMEOUT, "chunk_size": self.chunk_size,
            "sharding": "static" if self.static else "dynamic", "deterministic": self.deterministic,
        }  # fmt: skip
        return plan_run(folder, self.rows, model={"engine": "dummy", "dummy_delay": self.delay}, run=rules)


@dataclass
class Life:
    """One rank process and what was done to it; times by the clock of the file system, in nanoseconds."""

    journal: Path
    process: BaseProcess
    stopped: bool = False
    woken: int | None = None
    killed: int | None = None

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    def signal(self, number: signal.Signals) -> None:
        """To a rank that may just have ended."""
        assert self.process.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def dead_at(self, moment: int) -> bool:
        """Certainly dead then; one that was killed right after it woke may have written behind a reader's back."""
        if self.killed is None or self.killed > moment:
            return False
        return self.woken is None or self.killed - self.woken > SECOND


class Trial:
    """A run and its ranks; what is done to them is drawn from `rng`."""

    def __init__(self, paths: RunPaths, rng: random.Random, deterministic: bool) -> None:
        self.paths, self.counts, self.lives = paths, Counter[str](), list[Life]()
        self._rng, self._deterministic, self._attempts = rng, deterministic, 0
        self._torn = set[int]()

    def start(self) -> None:
        """A new attempt of 1 to 4 ranks."""
        attempt, world = f"t{self._attempts}", self._rng.randint(1, 4)
        self._attempts += 1
        for rank in range(world):
            process = start_process(rank_main, str(self.paths.root), rank_env(rank, world, attempt))
            self.lives.append(Life(self.paths.journal(attempt, rank), process))

    def disturb(self) -> None:
        """Random faults at random times."""
        actions = [self._kill] * 3 + [self._stop] * 4 + [self._wake] * 2 + [self._join] * 2 + [self._resume] * 2
        for _ in range(self._rng.randint(2, 9)):
            time.sleep(self._rng.uniform(0.0, 0.5))
            idle = not any(life.alive for life in self.lives)
            self._rng.choice([self._join, self._resume] if idle else actions)()

    def finish(self) -> None:
        """To the end, with some stopped ranks left asleep; incomplete only where a torn line had been counted."""
        self._wake()
        self._run_out()
        missing = set(merge(self.paths).missing)
        if missing and missing <= self._torn:
            self._next_round()
            self._run_out()

    def wake_all(self) -> None:
        """Whoever is still asleep comes back after everything is over."""
        for life in self.lives:
            if life.stopped:
                self._continue(life)
        self._await()

    def end(self) -> None:
        for life in self.lives:
            life.process.kill()
            life.process.join()

    def _run_out(self) -> None:
        self.start()
        self._await()

    def _await(self) -> None:
        for life in self.lives:
            if not life.stopped:
                code = finish(life.process)
                assert code == 0 or life.killed, f"{life} ended with {code}"

    def _now(self) -> int:
        """The time by the clock that stamps the claims."""
        mark = self.paths.root.with_suffix(".clock")
        mark.touch()
        return mark.stat().st_mtime_ns

    def _some(self, lives: Sequence[Life]) -> list[Life]:
        """One, several or all."""
        count = self._rng.choice((1, 1, self._rng.randint(1, 4), 4))
        return self._rng.sample(lives, min(count, len(lives)))

    def _kill(self) -> None:
        for life in self._some([life for life in self.lives if life.alive]):
            self._kill_one(life, self._rng.random() < 0.3)

    def _kill_one(self, life: Life, torn: bool = False) -> None:
        if torn:
            life.signal(signal.SIGSTOP)
            wait_for(lambda: process_state(life.process.pid) in ("T", "Z", ""), "a rank to stop")
            self._tear(life.journal)
        life.killed, life.stopped = self._now(), False
        life.signal(signal.SIGKILL)
        life.process.join()
        self.counts["kills"] += 1

    def _tear(self, journal: Path) -> None:
        """A torn last line: the last record's if no claim counts on it yet (before that it is synced), or one more."""
        lines = list(journal_lines(journal)) if journal.exists() else []
        if not lines or os.stat(journal).st_size != lines[-1][0] + len(lines[-1][1]) + 1:
            return
        (offset, line), self.counts["torn"] = lines[-1], self.counts["torn"] + 1
        record, keep = Record.parse(line), self._rng.randint(1, len(line))
        if self._is_open(record, journal.name):
            os.truncate(journal, offset + keep)
            self._torn.add(record.index)
        else:
            with journal.open("ab") as file:
                file.write(line[:keep])

    def _is_open(self, record: Record, journal: str) -> bool:
        for number in self.paths.rounds():
            claims = Claims(self.paths.round(number))
            generation, settled = claims.kinds(record.chunk)
            if generation == record.generation and claims.read_lease(record.chunk, generation).journal == journal:
                return not settled
        return False

    def _stop(self) -> None:
        for life in self._some([life for life in self.lives if life.alive and not life.stopped]):
            life.signal(signal.SIGSTOP)
            life.stopped = True
            self.counts["stops"] += 1
        time.sleep(self._rng.choice((0.0, 0.0, 1.5, 2.5)) * LEASE_TIMEOUT)

    def _wake(self) -> None:
        for life in self._some([life for life in self.lives if life.stopped]):
            self._continue(life)

    def _continue(self, life: Life) -> None:
        life.stopped, life.woken = False, self._now()
        life.signal(signal.SIGCONT)

    def _join(self) -> None:
        if sum(life.alive for life in self.lives) < 8:
            self.start()
            self.counts["joins"] += 1

    def _resume(self) -> None:
        """Most ranks end with their attempt; stopped ones may stay, now and then a working one too."""
        for life in self.lives:
            if life.alive and self._rng.random() < (0.4 if life.stopped else 0.85):
                self._kill_one(life)
        if self._next_round():
            self.start()

    def _next_round(self) -> bool:
        """What `hpcjobs resume` does before it launches, with the loss of a dead rank's journal now and then."""
        number, losing = self.paths.rounds()[-1], self._rng.choice(("before", "after", "", "", ""))
        if losing == "before":
            self._lose_a_journal()
        close_round(self.paths, number, self._deterministic)
        if losing == "after":
            self._lose_a_journal()
        merged = merge(self.paths)
        if not merged.complete:
            size = read_json(self.paths.plan)["chunk_size"]
            open_round(self.paths, number + 1, merged.missing, size, self._deterministic)
            self.counts["resumes"] += 1
        return not merged.complete

    def _lose_a_journal(self) -> None:
        dead = [life.journal for life in self.lives if life.killed and life.journal.exists()]
        if dead:
            journal = self._rng.choice(dead)
            self.counts["deleted"] += len(records_in(journal))
            journal.unlink()


class Audit:
    """What was done more often than once, from claims and journals, against what may be (see the module's text)."""

    def __init__(self, trial: Trial, setting: Setting) -> None:
        self._paths, self._setting, self.problems = trial.paths, setting, list[str]()
        self._lives = {life.journal.name: life for life in trial.lives}
        self._records: dict[tuple[str, int, int], list[Record]] = {}
        for path in trial.paths.journals():
            for record in records_in(path):
                self._records.setdefault((path.name, record.chunk, record.generation), []).append(record)
        self._open = Counter[str]()
        self.takeovers, self.accepted = 0, Counter[int]()
        self.recomputed = sum(map(len, self._records.values())) - setting.rows

    def run(self) -> Audit:
        extra = sum(self._round(number) for number in self._paths.rounds())
        self._say(not self._records, f"records without a lease: {list(self._records)[:3]}")
        self._say(extra == self.recomputed, f"{extra} records are not accepted, but {self.recomputed} were made again")
        for journal, count in self._open.items():
            self._say(count == 1, f"{journal} was killed with {count} open chunks")
        return self

    def _say(self, right: bool, problem: str) -> None:
        if not right:
            self.problems.append(problem)

    def _round(self, number: int) -> int:
        """Records of this round that are not accepted."""
        accepts = Acceptance(self._paths, number, self._setting.rows)
        return sum(self._chunk(accepts, number, chunk) for chunk in range(len(accepts.chunks)))

    def _chunk(self, accepts: Acceptance, number: int, chunk: int) -> int:
        claims, members = Claims(self._paths.round(number)), set(accepts.chunks[chunk])
        leases = [claims.read_lease(chunk, generation) for generation in range(claims.kinds(chunk)[0] + 1)]
        made = [(lease.journal, record) for lease in leases for record in self._made(lease, members)]
        taken = [record.index for journal, record in made if accepts.accepts(journal, record)]
        self.accepted.update(taken)
        self.takeovers += sum(bool(lease.journal) for lease in leases[1:])
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
            if lease.journal and (self._setting.deterministic or not self._was_dead(claims, lease)):
                yield len(members - taker.counted)

    def _was_dead(self, claims: Claims, lease: Lease) -> bool:
        """Whether a lease's holder was dead when the next generation was made."""
        taker = claims.folder / f"{lease.chunk}.{lease.generation + 1}"
        return self._lives[lease.journal].dead_at(taker.stat().st_mtime_ns)

    def _count_open(self, claims: Claims, leases: Sequence[Lease]) -> None:
        """Chunks that a killed rank still held: by the end of a trial every one of them was superseded."""
        for lease in leases[:-1]:
            if lease.journal and self._was_dead(claims, lease) and not self._is_done(claims, lease):
                self._open[lease.journal] += 1

    def _is_done(self, claims: Claims, lease: Lease) -> bool:
        if not (claims.folder / f"{lease.chunk}.done").exists():
            return False
        verdict = claims.read_verdict(lease.chunk, "done")
        return (verdict.journal, verdict.generation) == (lease.journal, lease.generation)


def run_trial(folder: Path, rng: random.Random, work: float) -> tuple[Counter[str], list[str], Setting]:
    """One trial in `folder`: what was counted, what was wrong, and its setting."""
    setting = Setting.draw(rng, work)
    trial = Trial(setting.plan(folder / "run"), rng, setting.deterministic)
    try:
        trial.start()
        trial.disturb()
        trial.finish()
        first = outcome(trial.paths)
        again = outcome(trial.paths)
        trial.wake_all()
        late = outcome(trial.paths)
    finally:
        trial.end()
    audit, expected = Audit(trial, setting).run(), undisturbed(setting.rows)
    wrong = [name for name, found in (("first", first), ("second", again), ("late", late)) if found[1:] != expected]
    counts = trial.counts + Counter(
        lost=len(first[0].missing), duplicated=sum(count - 1 for count in audit.accepted.values()),
        wrong=bool(wrong), takeovers=audit.takeovers, recomputed=audit.recomputed,
    )  # fmt: skip
    counts["over bound"] = len(audit.problems)
    return counts, audit.problems + [f"the {name} merge differs from the undisturbed run's" for name in wrong], setting


@dataclass(frozen=True)
class Options:
    """How trials are run: `work` is the most seconds of one rank in each; `keep` every run folder; say each trial."""

    seed: int
    work: float = 6.0
    keep: bool = False
    verbose: bool = False


def attempt_trial(folder: Path, number: int, options: Options) -> tuple[Counter[str], list[str], Setting | None]:
    """`run_trial` where an error, such as a rank that never ends, is one more thing that was wrong."""
    try:
        return run_trial(folder, random.Random(f"{options.seed}-{number}"), options.work)
    except Exception:
        return Counter(wrong=1), [traceback.format_exc()], None


def run_trials(numbers: Sequence[int], options: Options) -> tuple[Counter[str], int]:
    """All counts of these trials, and how many failed; the folder of a failed one is kept and named."""
    total, failed = Counter[str](), 0
    for number in numbers:
        folder = Path(tempfile.mkdtemp(prefix=f"chaos-{options.seed}-{number}-", dir=MEMORY))
        counts, problems, setting = attempt_trial(folder, number, options)
        total += counts + Counter(trials=1)
        failed += bool(problems)
        if options.verbose:
            print(number, setting, {name: counts[name] for name in COLUMNS if counts[name]}, flush=True)
        for problem in problems:
            print(f"trial {number} of seed {options.seed} FAILED in {folder}: {problem}", file=sys.stderr, flush=True)
        if not options.keep and not problems:
            shutil.rmtree(folder)
    return total, failed


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--first", type=int, default=0, help="number of the first trial, to repeat one")
    parser.add_argument("--keep", action="store_true", help="keep every run folder")
    parser.add_argument("--verbose", action="store_true", help="a line a trial")
    return parser.parse_args()


def main() -> int:
    given = parse()
    logging.getLogger("hpcjobs").setLevel(logging.ERROR)  # torn lines and lost journals are what this is about
    options = Options(given.seed, keep=given.keep, verbose=given.verbose)
    total, failed = run_trials(range(given.first, given.first + given.trials), options)
    print(" | ".join(COLUMNS))
    print(" | ".join(str(total[name]).rjust(len(name)) for name in COLUMNS))
    if failed:
        print(f"{failed} trials failed; seed {given.seed}: see above for their folders", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
