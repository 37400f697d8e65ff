"""The tests lie as the package lies: a reader finds the test of a module by the module's name."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "hpcjobs"
ROOMS = [path for path in sorted(PACKAGE.rglob("*")) if (path / "__init__.py").is_file()]
# What has no package of its own: tests on a real Slurm, those of the folders beside hpcjobs/, and comparisons with
# the programs of others.
BESIDE = {"old_runs", "slurm", "programs", "tools", "benchmarks", "docs", "reference"}


def folders() -> list[Path]:
    return [path for path in TESTS.rglob("*") if path.is_dir() and path.name != "__pycache__"]


@pytest.mark.parametrize("room", ROOMS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_room_has_tests_in_a_folder_of_its_name(room: Path) -> None:
    assert list((TESTS / room.relative_to(PACKAGE)).glob("test_*.py"))


def test_every_folder_of_tests_is_that_of_a_room() -> None:
    odd = [path for path in folders() if not (PACKAGE / path.relative_to(TESTS)).is_dir()]
    assert {path.relative_to(TESTS).parts[0] for path in odd} <= BESIDE
