"""A table of 200,000 rows on four ranks, and one of a million rows from 64: seconds, peak memory, files.

    python -m benchmarks.big_table [--rows 200000] [--ranks 4] [--before TREE] [--rounds 3]
    python -m benchmarks.big_table --finished [--rows 1000000] [--ranks 64]

The first runs `submit eval --wait` with the dummy engine as a user would, here and, in turn, in another working tree
(a checkout of an earlier commit), and prints the ratio of the medians. The second makes a finished run without its
ranks, and times `status`, `merge`, `report` and `runs` on it. Each is a whole process; its peak memory is that of the
largest process it starts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import hpcjobs
from benchmarks.synthetic import plan_synthetic, settle, write_data, write_journals

HERE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Seen:
    """What one run cost: seconds, the largest process in bytes, and the folder's names and inodes."""

    seconds: float
    peak: int
    names: int
    inodes: int


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--ranks", type=int)
    parser.add_argument("--before", type=Path, help="a working tree of an earlier commit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--finished", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if chosen.finished:
            finished(Path(folder), chosen.rows or 1_000_000, chosen.ranks or 64)
        else:
            whole(Path(folder), chosen.rows or 200_000, chosen.ranks or 4, chosen.before, chosen.rounds)


def whole(folder: Path, rows: int, ranks: int, before: Path | None, rounds: int) -> None:
    """Whole runs in each tree, in turn."""
    data = folder / "data.parquet"
    write_data(data, rows)
    trees = {"here": HERE} | ({"before": before.absolute()} if before else {})
    seen: dict[str, list[Seen]] = {name: [] for name in trees}
    for number in range(rounds):
        for name, tree in trees.items():
            seen[name].append(_run(tree, data, folder / f"{name}-{number}", ranks))
            print(f"{name}: {seen[name][-1]}", flush=True)
    for name, found in seen.items():
        seconds = statistics.median(one.seconds for one in found)
        peak = max(one.peak for one in found) / 1e6
        print(f"{name:<8} {seconds:6.1f} s  {peak:5.0f} MB  {found[0].names} names, {found[0].inodes} inodes")
    if before:
        ours, theirs = ([one.seconds for one in seen[name]] for name in ("here", "before"))
        print(f"seconds, here / before: {statistics.median(ours) / statistics.median(theirs):.2f}")


def _run(tree: Path, data: Path, run: Path, ranks: int) -> Seen:
    words = ["submit", "eval", "--executor", "local", "--ntasks-per-node", str(ranks), "--gpus", "0", "--wait", "--yes"]
    sets = ("model.engine=dummy", f"data.name={data}", "task.prompt='{{ question }}'", "task.target='{{ answer }}'")
    words += [word for one in sets for word in ("--set", one)]
    watch = _Peak(str(run))
    began = time.perf_counter()
    with watch:
        subprocess.run(
            [sys.executable, "-m", "hpcjobs", *words, "--run-dir", str(run)], cwd=tree, check=True,
            capture_output=True, env=os.environ | {"PYTHONPATH": str(tree)},
        )  # fmt: skip
    took = time.perf_counter() - began
    paths = [Path(top, name) for top, folders, names in os.walk(run) for name in [*folders, *names]]
    return Seen(took, watch.bytes, len(paths), len({path.lstat().st_ino for path in paths}))


class _Peak(threading.Thread):
    """The largest resident size of a process whose command line names `word`, looked at five times a second."""

    def __init__(self, word: str) -> None:
        super().__init__(daemon=True)
        self._word, self._over, self.bytes = word.encode(), threading.Event(), 0

    def run(self) -> None:
        while not self._over.wait(0.2):
            for entry in os.listdir("/proc"):
                if entry.isdigit():
                    self._look(Path("/proc", entry))

    def _look(self, process: Path) -> None:
        try:
            if self._word in (process / "cmdline").read_bytes():
                pages = int((process / "statm").read_text().split()[1])
                self.bytes = max(self.bytes, pages * resource.getpagesize())
        except (OSError, IndexError):
            return  # it has ended

    def __enter__(self) -> _Peak:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


def finished(folder: Path, rows: int, ranks: int) -> None:
    """The verbs on a run whose ranks have ended."""
    run = folder / "runs" / "big"
    # In a process of its own, whose memory counts for no other (benchmarks.processes).
    maker = multiprocessing.get_context("spawn").Process(target=_make, args=(folder / "data.parquet", run, rows, ranks))
    maker.start()
    maker.join()
    for verb in ("status", "merge", "report", "status", "runs"):
        words = [verb, *([str(run)] if verb != "runs" else [])]
        took = hpcjobs(words, os.environ | {"HPCJOBS_RUNS": str(folder / "runs")})
        print(f"{verb:<8} {took.seconds:6.1f} s  {took.peak / 1e6:5.0f} MB", flush=True)


def _make(data: Path, run: Path, rows: int, ranks: int) -> None:
    write_data(data, rows)
    paths = plan_synthetic(run, data, ranks)
    settle(paths, ranks)
    size = write_journals(paths, ranks)
    print(f"{rows:,} rows in {ranks} journals of {size / 1e9:.2f} GB", flush=True)


if __name__ == "__main__":
    main()
