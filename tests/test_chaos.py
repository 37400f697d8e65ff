"""A few trials of benchmarks/chaos.py, and whether its audit sees what it is there to see."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

from hpcjobs.claims import Claims
from tests.runs import lease_of, plan_run, record_of, settle_by_hand, write_journal

SOURCE = Path(__file__).resolve().parent.parent / "benchmarks" / "chaos.py"


@pytest.fixture(scope="module")
def chaos() -> ModuleType:
    """The module benchmarks/chaos.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("chaos", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def test_whatever_happens_to_ranks_the_results_are_those_of_an_undisturbed_run(chaos: ModuleType) -> None:
    total, failed = chaos.run_trials(range(4), chaos.Options(seed=4, work=1.0))
    assert failed == 0
    assert total["trials"] == 4
    assert not {name: total[name] for name in ("lost", "duplicated", "wrong", "over bound") if total[name]}
    assert min(total[name] for name in ("kills", "stops", "joins", "resumes")) > 0, "nothing was injected"


def test_the_audit_sees_what_was_made_once_too_often(chaos: ModuleType, ram: Path) -> None:
    paths, setting = plan_run(ram / "run", 7), chaos.Setting(7, 8, 0.0, False, False)
    records = settle_by_hand(paths)
    trial = chaos.Trial(paths, random.Random(0), False)
    write_journal(paths, records)
    audit = chaos.Audit(trial, setting).run()
    assert (audit.problems, audit.recomputed, sum(audit.accepted.values())) == ([], 0, 7)
    write_journal(paths, [*records, records[0]])
    again = chaos.Audit(trial, setting).run()
    assert (len(again.problems), again.recomputed, max(again.accepted.values())) == (2, 1, 2)
    write_journal(paths, [*records, record_of(0, 0, generation=5)])
    assert "without a lease" in chaos.Audit(trial, setting).run().problems[0]


@pytest.mark.parametrize(("killed", "problems"), [(0, 1), (None, 0)], ids=["dead", "alive"])
def test_only_a_holder_that_lived_may_cost_its_records(
    chaos: ModuleType, ram: Path, killed: int | None, problems: int
) -> None:
    """Two generations made the one sample, although the second should have named the first's record."""
    paths = plan_run(ram / "run", 1)
    taker = lease_of(0, 1, generation=1)
    assert Claims(paths.round(0)).lease(lease_of(0))
    assert Claims(paths.round(0)).lease(taker)
    assert Claims(paths.round(0)).done(taker)
    write_journal(paths, [record_of(0, 0)])
    write_journal(paths, [record_of(0, 0, 1, generation=1)], "a-1.jsonl")
    trial = chaos.Trial(paths, random.Random(0), False)
    trial.lives.append(chaos.Life(paths.journal("a", 0), None, killed=killed))
    audit = chaos.Audit(trial, chaos.Setting(1, 8, 0.0, False, False)).run()
    assert (len(audit.problems), audit.recomputed, audit.takeovers) == (problems, 1, 1)
