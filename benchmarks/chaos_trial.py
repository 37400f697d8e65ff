"""Trial: a run on files, its ranks, and the faults that meet them at random times. No Slurm."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.chaos_audit import Audit
from benchmarks.chaos_life import file_clock
from benchmarks.chaos_process import PATIENCE, RankProcess, start_ranks
from benchmarks.chaos_setting import Setting
from hpcjobs.merge.eval import merge
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.journal.journal import journal_lines
from hpcjobs.run_folder.journal.record import Record
from hpcjobs.run_folder.ledger.claims import Claims
from hpcjobs.run_folder.ledger.rounds import close_round, open_round
from hpcjobs.run_folder.paths import RunPaths
from tests.runs import outcome, process_state, records_in, wait_for

_MOST_RANKS = 8


class Trial:
    """A run and its ranks; what is done to them is drawn from `rng`."""

    def __init__(self, paths: RunPaths, rng: random.Random, setting: Setting) -> None:
        self.paths, self.counts, self.lives = paths, Counter[str](), list[RankProcess]()
        self._rng, self._setting, self._attempts = rng, setting, 0
        self._kind = rng.choice(("plain", "elsewhere", "guarded", "guarded"))
        self._torn = set[int]()

    def start(self) -> None:
        """A new attempt of 1 to 4 ranks, of 2 or 3 where each loads a model."""
        world = self._rng.choice((2, 2, 3) if self._setting.tiny else (1, 2, 3, 4))
        self.lives += start_ranks(self.paths, world, f"t{self._attempts}", self._kind)
        self._attempts += 1

    def disturb(self) -> None:
        """Random faults at random times."""
        if self._setting.tiny:
            wait_for(self._has_begun, "a record, or the end of all ranks", PATIENCE)
        actions = [self._kill] * 3 + [self._stop] * 4 + [self._wake] * 2 + [self._drain] * 2
        actions += [self._join] * 2 + [self._resume] * 2
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
            life.end()

    def _has_begun(self) -> bool:
        return bool(self.paths.journals()) or not any(life.alive for life in self.lives)

    def _run_out(self) -> None:
        self.start()
        self._await()

    def _await(self) -> None:
        for life in self.lives:
            if not life.stopped:
                life.settle()

    def _now(self) -> int:
        return file_clock(self.paths.root)

    def _some(self, lives: Sequence[RankProcess]) -> list[RankProcess]:
        """One, several or all."""
        count = self._rng.choice((1, 1, self._rng.randint(1, 4), 4))
        return self._rng.sample(lives, min(count, len(lives)))

    def _kill(self) -> None:
        for life in self._some([life for life in self.lives if life.alive]):
            self._kill_one(life, self._rng.random() < 0.3)

    def _kill_one(self, life: RankProcess, torn: bool = False) -> None:
        pid = life.pid
        if torn and pid is not None:
            life.signal(signal.SIGSTOP)
            wait_for(lambda: process_state(pid) in ("T", "Z", ""), "a rank to stop")
            self._tear(life.journal)
        life.kill(self._now(), self._rng)
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
        for life in self._some([life for life in self.lives if life.alive and not life.stopped and life.pid]):
            life.stop(self._rng)
            self.counts["stops"] += 1
        time.sleep(self._rng.choice((0.0, 0.0, 1.5, 2.5)) * self._setting.lease_timeout)

    def _wake(self) -> None:
        for life in self._some([life for life in self.lives if life.stopped]):
            self._continue(life)

    def _continue(self, life: RankProcess) -> None:
        life.wake(self._now())

    def _drain(self) -> None:
        for life in self._some([life for life in self.lives if life.alive and not life.drained and life.pid]):
            self._drain_one(life)

    def _drain_one(self, life: RankProcess) -> None:
        life.drain(self._rng)
        self.counts["drains"] += 1

    def _join(self) -> None:
        if sum(life.alive for life in self.lives) < _MOST_RANKS:
            self.start()
            self.counts["joins"] += 1

    def _resume(self) -> None:
        """Most ranks end with their attempt, killed or asked to; stopped ones may stay, now and then a working one."""
        asked = self._rng.random() < 0.5
        for life in self.lives:
            if life.alive and self._rng.random() < (0.4 if life.stopped else 0.85):
                if asked and life.pid and not life.drained:
                    self._drain_one(life)
                else:
                    self._kill_one(life)
        if self._next_round():
            self.start()

    def _next_round(self) -> bool:
        """What `hpcjobs resume` does before it launches, with the loss of a dead rank's journal now and then."""
        number, losing = self.paths.rounds()[-1], self._rng.choice(("before", "after", "", "", ""))
        if losing == "before":
            self._lose_a_journal()
        close_round(self.paths, number, self._setting.deterministic)
        if losing == "after":
            self._lose_a_journal()
        merged = merge(self.paths)
        if not merged.complete:
            size = read_json(self.paths.plan)["chunk_size"]
            open_round(self.paths, number + 1, merged.missing, size, self._setting.deterministic)
            self.counts["resumes"] += 1
        return not merged.complete

    def _lose_a_journal(self) -> None:
        dead = [life.journal for life in self.lives if life.killed and life.journal.exists()]
        if dead:
            journal = self._rng.choice(dead)
            self.counts["deleted"] += len(records_in(journal))
            journal.unlink()


def run_trial(folder: Path, rng: random.Random, setting: Setting) -> tuple[Counter[str], list[str]]:
    """One trial in `folder`: what was counted, and what was wrong."""
    trial = Trial(setting.plan(folder / "run"), rng, setting)
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
    audit = Audit(trial.paths, trial.lives, setting.rows, setting.deterministic).run()
    found, expected = {"first": first, "second": again, "late": late}, setting.expected()
    wrong = [name for name, merged in found.items() if merged[1:] != expected]
    counts = trial.counts + audit.counts() + Counter(lost=len(first[0].missing), wrong=bool(wrong))
    return counts, audit.problems + [f"the {name} merge differs from the undisturbed run's" for name in wrong]
