"""The table of other people's programs: what is changed in them, and what the page says of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.programs_list import PROGRAMS
from benchmarks.programs_run import Program
from benchmarks.programs_table import UNDER, Results, page

ONE = Program(
    "theirs", "examples/p.py", ("--data", "{data}/x"), (("cuda", "cpu"), ("lib.py", "16", "{tasks}")), what="CPU"
)


def lay(program: Program, folder: Path) -> Path:
    examples = folder / "checkouts/theirs/examples"
    examples.mkdir(parents=True)
    (examples / "p.py").write_text("device = 'cuda'\n")
    (examples / "lib.py").write_text("RANKS = 16\n")
    program.lay(folder / "checkouts", folder / "data", folder / "work", (1, 2))
    return folder / "work"


def test_a_copy_is_changed_and_the_checkout_is_not(tmp_path: Path) -> None:
    work = lay(ONE, tmp_path)
    assert (work / "p.py").read_text() == "device = 'cpu'\n"
    assert (work / "lib.py").read_text() == "RANKS = 2\n"
    assert (tmp_path / "checkouts/theirs/examples/p.py").read_text() == "device = 'cuda'\n"
    assert ONE.argv(Path("/data"), (1, 2)) == ["p.py", "--data", "/data/x"]


def test_a_change_that_no_longer_fits_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"p\.py does not have 'tpu'"):
        lay(Program("theirs", "examples/p.py", changes=(("tpu", "cpu"),)), tmp_path)


def results(program: Program, *lasts: str) -> Results:
    runs = [(program.name, shape, under) for shape in program.shapes for under in UNDER]
    return {run: {"code": 0, "last": last} for run, last in zip(runs, lasts, strict=False)}


def test_the_page_names_what_differs_and_leaves_out_what_was_not_run_in_full() -> None:
    half = Program("theirs", "half.py")
    found = results(ONE, "1.5", "1.5", "2.5", "9.5") | results(half, "1", "1", "1")
    text = page([ONE, half], found, {"theirs": "0123456789abcdef"})
    assert "| `theirs/examples/p.py` | torchrun | CPU | 0; 1.5 | alone 0; 2.5, hpcjobs 0; 9.5 |\n" in text
    assert "half.py" not in text
    assert text.endswith("0 of 1 programs are the same. The commits: theirs 012345678.\n")


def test_each_program_stands_there_once_and_says_what_was_changed() -> None:
    assert len({program.name for program in PROGRAMS}) == len(PROGRAMS) > 25
    assert [program.name for program in PROGRAMS if not program.what] == []
    assert [program.name for program in PROGRAMS if program.what == "nothing" and program.changes] == []
