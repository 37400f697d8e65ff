"""A few trials of benchmarks/chaos.py, and whether its audit sees what it is there to see."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.chaos import Options, file_trial, run_trials
from benchmarks.chaos_audit import Audit
from benchmarks.chaos_commands import run_command_trial
from benchmarks.chaos_life import Life
from hpcjobs.run_folder.ledger.chunks import write_chunks
from hpcjobs.run_folder.ledger.claims import Claims, Lease
from hpcjobs.run_folder.ledger.takeover import release
from hpcjobs.run_folder.paths import RunPaths
from tests.runs import lease_of, plan_run, record_of, settle_by_hand, write_journal


def test_whatever_happens_to_ranks_the_results_are_those_of_an_undisturbed_run() -> None:
    options = Options(seed=4, work=1.0)
    total, failed = run_trials(range(6), options, file_trial(options))
    assert failed == 0
    assert total["trials"] == 6
    assert not {name: total[name] for name in ("lost", "duplicated", "wrong", "over bound") if total[name]}
    assert min(total[name] for name in ("kills", "stops", "drains", "joins", "resumes")) > 0, "nothing was injected"


def test_commands_at_once_and_cut_short_leave_no_trace(ram: Path) -> None:
    counts, problems, _ = run_command_trial(ram / "trial", random.Random(2))
    assert problems == []
    assert min(counts["commands"], counts["cut short"]) > 0, "nothing was cut short"


def audit_of(paths: RunPaths, rows: int, lives: Sequence[Life] = (), deterministic: bool = False) -> Audit:
    return Audit(paths, lives, rows, deterministic).run()


def test_the_audit_sees_what_was_made_once_too_often(ram: Path) -> None:
    paths = plan_run(ram / "run", 7)
    records = settle_by_hand(paths)
    write_journal(paths, records)
    audit = audit_of(paths, 7)
    assert (audit.problems, audit.recomputed, sum(audit.accepted.values())) == ([], 0, 7)
    write_journal(paths, [*records, records[0]])
    again = audit_of(paths, 7)
    assert (len(again.problems), again.recomputed, max(again.accepted.values())) == (2, 1, 2)
    write_journal(paths, [*records, record_of(0, 0, generation=5)])
    assert "without a lease" in audit_of(paths, 7).problems[0]


def made_twice(folder: Path, *between: Lease) -> RunPaths:
    """Generation 0 and a last one have made the one sample of a run; `between` are the leases after the first."""
    paths = plan_run(folder / "run", 1)
    claims, taker = Claims(paths.round(0)), lease_of(0, 1, generation=1 + len(between))
    for lease in (lease_of(0), *between, taker):
        assert claims.lease(lease)
    assert claims.done(taker)
    write_journal(paths, [record_of(0, 0)])
    write_journal(paths, [record_of(0, 0, 1, generation=taker.generation)], "a-1.jsonl")
    return paths


@pytest.mark.parametrize(("killed", "problems"), [(0, 1), (None, 0)], ids=["dead", "alive"])
def test_only_a_holder_that_lived_may_cost_its_records(ram: Path, killed: int | None, problems: int) -> None:
    """Two generations made the one sample, although the second should have named the first's record."""
    paths = made_twice(ram)
    audit = audit_of(paths, 1, [Life(paths.journal("a", 0), killed=killed)])
    assert (len(audit.problems), audit.recomputed, audit.takeovers) == (problems, 1, 1)


@pytest.mark.parametrize(("rank", "problems"), [(0, 1), (1, 0)], ids=["by itself", "by another"])
def test_what_a_rank_gave_back_by_itself_costs_nothing(ram: Path, rank: int, problems: int) -> None:
    paths = made_twice(ram, lease_of(0, rank, generation=1, journal="", released="drained"))
    audit = audit_of(paths, 1)
    assert (len(audit.problems), audit.recomputed, audit.takeovers, audit.releases) == (problems, 1, 0, 1)


def test_a_release_names_what_counts_and_a_later_record_of_its_holder_is_one_too_many(ram: Path) -> None:
    paths = plan_run(ram / "run", 2)
    paths.chunks(0).unlink()
    write_chunks(paths.chunks(0), [[0, 1]])
    claims, first = Claims(paths.round(0)), lease_of(0)
    assert claims.lease(first)
    assert release(claims, first, [0], "drained")
    taker = lease_of(0, 1, generation=2, former=claims.read_lease(0, 1).former)
    assert claims.lease(taker)
    assert claims.done(taker)
    write_journal(paths, [record_of(1, 0, 1, generation=2)], "a-1.jsonl")
    write_journal(paths, [record_of(0, 0)])
    assert audit_of(paths, 2).problems == []
    write_journal(paths, [record_of(0, 0), record_of(1, 0)])
    assert len(audit_of(paths, 2).problems) == 1
