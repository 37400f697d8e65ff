"""docs/programs.md: what benchmarks/programs.py found, as a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.programs_run import Program

# (program, shape, "alone" or "hpcjobs") -> code, last and seconds.
Results = dict[tuple[str, str, str], dict[str, Any]]
UNDER = ("alone", "hpcjobs")
_HEAD = """\
# Programs of others

What runs under srun or torchrun runs under [`submit script`](scripts.md) as it is. These programs are examples,
tutorials and tests of other projects, at the commits below. `python -m benchmarks.programs CHECKOUTS` copied each,
made the changes that its row names, and ran it on a real Slurm of two nodes on one machine, under srun or torchrun
alone and under hpcjobs: on one node with two ranks, and on two nodes with one. accelerate is told both ways that there
are no GPUs (`ACCELERATE_USE_CPU`), and each rank has one thread. A cell has the exit code and the last loss, or what
else the program says last, of both, or of each where they differ. Two are weak: the DDP series trains on one class, so
that its loss is 0, and that of FSDP2's example is no number on a CPU, alone and here.

"""
_TABLE = """\
| program | started alone by | what was changed | 1 node x 2 | 2 nodes x 1 |
|---|---|---|---|---|
"""


def read_results(paths: Sequence[Path]) -> Results:
    """The rows of files of results; a later one of the same run counts."""
    rows = [json.loads(line) for path in paths if path.exists() for line in path.read_text().splitlines()]
    return {(row["program"], row["shape"], row["under"]): row for row in rows}


def page(programs: Sequence[Program], results: Results, commits: Mapping[str, str]) -> str:
    """The page with the programs that were run in full, and a line that counts them."""
    whole = [program for program in programs if _is_whole(program, results)]
    same = sum(all(_is_same(program, shape, results) for shape in program.shapes) for program in whole)
    sources = ", ".join(f"{name} {commits[name][:9]}" for name in sorted({program.source for program in whole}))
    rows = "".join(_row(program, results) for program in whole)
    return f"{_HEAD}{_TABLE}{rows}\n{same} of {len(whole)} programs are the same. The commits: {sources}.\n"


def _is_whole(program: Program, results: Results) -> bool:
    return all((program.name, shape, under) in results for shape in program.shapes for under in UNDER)


def _is_same(program: Program, shape: str, results: Results) -> bool:
    alone, ours = (results[program.name, shape, under] for under in UNDER)
    return bool((alone["code"], alone["last"]) == (ours["code"], ours["last"]))


def _row(program: Program, results: Results) -> str:
    starts = {"srun": "srun", "torchrun": "torchrun", "node": "srun, once a node"}[program.how]
    cells = [_cell(program, shape, results) if shape in program.shapes else "-" for shape in ("1x2", "2x1")]
    return f"| {' | '.join([program.shown, starts, program.what, *cells])} |\n"


def _cell(program: Program, shape: str, results: Results) -> str:
    alone, ours = (_said(results[program.name, shape, under]) for under in UNDER)
    return alone if alone == ours else f"alone {alone}, hpcjobs {ours}"


def _said(row: Mapping[str, Any]) -> str:
    last = str(row["last"]).strip("*").replace("|", "\\|")
    return f"{row['code']}; {last}" if last else str(row["code"])
