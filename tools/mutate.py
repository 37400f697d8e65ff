"""Make mutants of the rooms that decide numbers, run each room's tests on each, and name those that no test kills.

    python tools/mutate.py --sample 60 --seed 1         # 60 mutants of each room
    python tools/mutate.py metrics --sample 0           # every mutant of a room
    python tools/mutate.py hpcjobs/commands/status.py   # of a file, with the tests of its folder
    python tools/mutate.py hpcjobs/metrics/numbers.py:51

A mutant is killed by a test that fails, or takes several times as long as without it, before and right after. First
come the quick tests that run its lines, then the others that run lines of its file; all of the room where none does.
tools/mutants_equivalent.txt names those that no test can kill.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from mutants import Mutant, mutants
from mutation_run import ROOT, Runner, Test, runner

EQUIVALENT = Path(__file__).with_name("mutants_equivalent.txt")


@dataclass(frozen=True, kw_only=True)
class Room:
    """Patterns of the files to mutate, below hpcjobs/, and of their tests and folders of tests, below tests/."""

    code: tuple[str, ...]
    tests: tuple[str, ...]


_ROWS = (
    "arrow_*", "column_types", "csv_*", "datasets", "file_names", "ids", "json_rows", "jsonl", "nulls", "read_files",
    "targets", "written_columns",
)  # fmt: skip
ROOMS = {
    "acceptance": Room(code=("run_folder/ledger/acceptance.py",), tests=("run_folder/ledger",)),
    "ledger": Room(code=("run_folder/ledger/[!a]*.py",), tests=("run_folder/ledger",)),
    "merge": Room(code=("merge/*.py",), tests=("merge",)),
    "metrics": Room(
        code=("metrics/*.py", "metrics/builtin/*.py"),
        tests=("metrics", "reference/test_metrics.py", "reference/test_statistics.py"),
    ),
    "data": Room(
        code=tuple(f"tasks/{name}.py" for name in _ROWS),
        tests=("tasks/test_*.py", "reference/test_arrow.py", "reference/test_csv.py", "reference/test_json.py"),
    ),
    "prompts": Room(
        code=("tasks/prompts.py", "tasks/few_shot.py", "tasks/eval_task.py", "tasks/seeds.py", "requests.py"),
        tests=("tasks/test_*.py",),
    ),
    "encoding": Room(
        code=("engines/encoding.py", "engines/lengths.py", "engines/stop_strings.py", "training/data/*.py"),
        tests=(
            "engines/test_encoding.py",
            "engines/test_lengths.py",
            "engines/test_stop_strings.py",
            "engines/test_dummy.py",
            "training/data",
            "reference/test_detokenisation.py",
        ),
    ),
    "scoring": Room(code=("engines/scoring/*.py",), tests=("engines/scoring", "engines/test_causal.py")),
}


def main() -> int:
    """Print a line for each mutant and a table; 1 if a mutant survives."""
    options = _options()
    os.nice(15)
    with runner() as ready:
        totals = {name: _room(ready, name, options) for name in options.rooms or ROOMS}
    print("\nroom         mutants killed (by time) equivalent survived   share")
    for name, ends in totals.items():
        print(_row(name, ends))
    print(_row("all", sum(totals.values(), Counter())))
    return int(any(ends["SURVIVED"] for ends in totals.values()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rooms", nargs="*", metavar="ROOM", help=f"{', '.join(ROOMS)}, FILE or FILE:LINE; default all")
    parser.add_argument("--tests", nargs="+", metavar="PATH", help="run these tests and no others")
    parser.add_argument("--sample", type=int, default=60, help="how many mutants of each room, 0 for all (default 60)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default 0)")
    return parser.parse_args()


def _room(ready: Runner, name: str, options: argparse.Namespace) -> Counter[str]:
    paths, tests, line = _files(name)
    tests = options.tests or tests
    texts = {path: (ROOT / path).read_text(encoding="utf-8") for path in paths}
    every = [each for path, text in texts.items() for each in mutants(path, text) if line is None or line in each.lines]
    if options.sample and len(every) > options.sample:
        every = random.Random(f"{name} {options.seed}").sample(every, options.sample)
    known = equivalent()
    recorded = ready.record(paths, tests)
    ends = Counter[str]()
    for mutant in sorted(every, key=lambda one: (one.path, one.lines.start)):
        begin = time.monotonic()
        end = "equivalent" if known & {mutant.key, mutant.place} else _end(ready, mutant, texts[mutant.path], recorded)
        ends[end] += 1
        print(f"{end:10} {mutant.path}:{mutant.lines.start} {mutant.scope}: {mutant}"
              f"  ({time.monotonic() - begin:.0f} s)", flush=True)  # fmt: skip
    return ends


def _files(name: str) -> tuple[list[str], list[str], int | None]:
    """The files of a room, the paths of its tests, and the line if one is named."""
    if name in ROOMS:
        code = [file for pattern in ROOMS[name].code for file in sorted((ROOT / "hpcjobs").glob(pattern))]
        tests = [file for pattern in ROOMS[name].tests for file in sorted((ROOT / "tests").glob(pattern))]
        return [str(file.relative_to(ROOT)) for file in code], [str(file.relative_to(ROOT)) for file in tests], None
    path, _, line = name.partition(":")
    if not (ROOT / path).is_file():
        sys.exit(f"{name!r} is neither a room ({', '.join(ROOMS)}) nor a file of this repository")
    return [path], [str(Path("tests", *Path(path).parts[1:-1]))], int(line) if line else None


def equivalent() -> set[str]:
    """The keys of the mutants that do the same as the code, and statements of which all do; each below its reason."""
    lines = EQUIVALENT.read_text(encoding="utf-8").splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def _end(ready: Runner, mutant: Mutant, text: str, recorded: dict[str, Test], patience: int = 1) -> str:
    quick = dict(sorted(recorded.items(), key=lambda item: item[1].seconds))
    lines = set(mutant.lines)
    on_it = {name: test for name, test in quick.items() if not lines.isdisjoint(test.files.get(mutant.path, ()))}
    near = {name: test for name, test in quick.items() if not on_it or mutant.path in test.files}
    rest = {name: test for name, test in near.items() if name not in on_it}
    how: str | None = None
    ready.write(mutant.path, mutant.text)
    try:
        for tests in filter(None, (on_it, rest)):
            if how := ready.fails(tests, patience):
                break
    finally:
        ready.write(mutant.path, text)
    if how == "timeout" and ready.fails(tests, patience) == "timeout":  # without the mutant too: the machine is busy
        return _end(ready, mutant, text, recorded, 4 * patience)
    return {None: "SURVIVED", "failed": "killed", "timeout": "timed out"}[how]


def _row(name: str, ends: Counter[str]) -> str:
    killed = ends["killed"] + ends["timed out"]
    counted = killed + ends["SURVIVED"]
    return (f"{name:12} {ends.total():7} {killed:6} {ends['timed out']:9} {ends['equivalent']:10} {ends['SURVIVED']:8}"
            f" {killed / counted if counted else 1:7.1%}")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
