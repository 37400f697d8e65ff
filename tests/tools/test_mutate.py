"""tools/mutate.py on a tiny package: what it makes, what it finds, and how it ends."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
CODE = """from collections.abc import Callable

def most(values: list[int]) -> int:
    best = 0
    for value in values:
        if value > best:
            best = value
    return best


def wait(done: Callable[[], bool]) -> None:
    while not done():
        pass
"""
TESTS = """
from pathlib import Path

from hpcjobs.room.small import most, wait


def test_most():
    assert most([3, 7, 2]) == 7


def test_wait():
    wait(lambda: True)


def test_fails_once():
    made = Path(__file__).with_name("made")
    seen = made.exists()
    made.touch()
    assert seen
    assert most([]) >= 0


def test_fails():
    assert most([5]) == 6
"""
EQUIVALENT = """# the same value is put in the place of one that is as great
hpcjobs/room/small.py most: value > best -> value >= best | if value > best:
# no such change is made
hpcjobs/room/small.py most: value > best -> value != best | if value > best:
"""
# Without the libraries that it imports for the real tests, and without the least patience that a busy machine needs.
RUN = """
import sys
sys.path[:0] = [sys.argv.pop(1)]
import mutate, mutation_run
mutation_run.HEAVY, mutation_run.LEAST_SECONDS = (), float(sys.argv.pop(1))
sys.exit(mutate.main())
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A repository of one file, its tests, and the tool."""
    texts = {
        "hpcjobs/__init__.py": "", "hpcjobs/room/__init__.py": "", "hpcjobs/room/small.py": CODE,
        "tests/room/test_small.py": TESTS, "tools/mutants_equivalent.txt": EQUIVALENT,
        "pyproject.toml": '[tool.pytest.ini_options]\nmarkers = ["slow: x", "slurm: x", "real: x"]\n',
    }  # fmt: skip
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for name in ("mutate.py", "mutants.py", "mutation_run.py"):
        shutil.copy(TOOLS / name, tmp_path / "tools" / name)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    return tmp_path


def mutate(folder: Path, *arguments: str, least: float = 3.0) -> tuple[int, list[str]]:
    command: list[str | Path] = [sys.executable, "-c", RUN, folder / "tools", str(least), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert not done.stderr
    return done.returncode, done.stdout.splitlines()


def test_it_names_what_no_test_kills(copy: Path) -> None:
    end, lines = mutate(copy, "hpcjobs/room/small.py", "--sample", "0")
    ends = [line.rpartition("  (")[0].replace("hpcjobs/room/small.py:", "").split(maxsplit=1) for line in lines[1:7]]
    assert lines[0] == "left out, it fails without a mutant: tests/room/test_small.py::test_fails"
    assert [" ".join(" ".join(words).split()) for words in ends] == [
        "SURVIVED 4 most: 0 -> 1 | best = 0",
        "killed 4 most: 0 -> -1 | best = 0",
        "equivalent 6 most: value > best -> value >= best | if value > best:",
        "killed 6 most: value > best -> value <= best | if value > best:",
        "killed 8 most: return best -> return None",
        "timed out 12 wait: not done() -> done() | while not done():",
    ]
    assert lines[-1].split() == ["all", "6", "4", "1", "1", "1", "80.0%"]
    assert end == 1
    assert (copy / "hpcjobs" / "room" / "small.py").read_text() == CODE


def test_a_line_where_all_are_killed_is_a_success(copy: Path) -> None:
    end, lines = mutate(copy, "hpcjobs/room/small.py:8", "--tests", "tests/room")
    assert (end, lines[-1].split()) == (0, ["all", "1", "1", "0", "0", "0", "100.0%"])


BUSY = """
import time
from pathlib import Path

from hpcjobs.room.small import most


def test_most():
    runs = Path(__file__).with_name("runs")
    with runs.open("a") as file:
        file.write("x")
    if len(runs.read_text()) in (2, 3):
        time.sleep(60)
    assert most([]) >= 0
"""


def test_what_takes_long_without_the_mutant_too_is_tried_again_with_patience(copy: Path) -> None:
    """The second run is with the mutant, the third without: as on a machine that was busy for a while."""
    (copy / "tests/room/test_small.py").write_text(BUSY)
    end, lines = mutate(copy, "hpcjobs/room/small.py:4", "--tests", "tests/room", least=8.0)
    assert [line.split()[0] for line in lines[:2]] == ["SURVIVED", "killed"]
    assert end == 1


MADE = """
import logging
log = logging.getLogger()
LEAST: int = 2

def part(values: Values, most: int = 3) -> list[int]:
    if not values and LEAST:
        raise ValueError(f"{most + 1} values, and no {values}")
    log.warning("%d", most - 1)
    pairs = zip(values[LEAST:-1], values, strict=True)
    return [one * 0.5 for one, other in pairs if one is other]
"""


def test_its_faults_are_of_code_and_not_of_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    made = importlib.import_module("mutants").mutants("made.py", MADE)
    assert [f"{one.lines.start} {one.before} -> {one.after}" for one in made] == [
        "4 2 -> 3",
        "4 2 -> 1",
        "7 not values and LEAST -> not values or LEAST",
        "7 not values -> values",
        "8 raise ValueError(f'{most + 1} values, and no {values}') -> pass",
        "10 zip(values[LEAST:-1], values, strict=True) -> zip(values, values[LEAST:-1], strict=True)",
        "10 LEAST:-1 -> LEAST + 1:-1",
        "10 -1 -> 1",
        "10 1 -> 2",
        "10 1 -> 0",
        "11 return [one * 0.5 for one, other in pairs if one is other] -> return None",
        "11 one * 0.5 -> one / 0.5",
        "11 0.5 -> 0.625",
        "11 for ... if one is other -> for ...",
        "11 one is other -> one is not other",
    ]
