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


def test_the_guide_has_a_row_for_each_room_and_the_file_to_open_first() -> None:
    table = (
        (TESTS.parent / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Rooms")[2].partition("\n## ")[0]
    )
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("| `")]
    named = [name.strip("` ") for first, *_ in rows for name in first.split(",")]
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert sorted(named) == sorted(files | {path.name for path in ROOMS if path.parent == PACKAGE})
    assert [first for *_, first in rows if not (PACKAGE / first.strip("`")).is_file()] == []


def folders() -> list[Path]:
    return [path for path in TESTS.rglob("*") if path.is_dir() and path.name != "__pycache__"]


@pytest.mark.parametrize("room", ROOMS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_room_has_tests_in_a_folder_of_its_name(room: Path) -> None:
    assert list((TESTS / room.relative_to(PACKAGE)).glob("test_*.py"))


def test_every_folder_of_tests_is_that_of_a_room() -> None:
    odd = [path for path in folders() if not (PACKAGE / path.relative_to(TESTS)).is_dir()]
    assert {path.relative_to(TESTS).parts[0] for path in odd} <= BESIDE
