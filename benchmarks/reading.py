"""How long the rows of JSON Lines and CSV files take to read, here and in another checkout, turn by turn.

    python -m benchmarks.reading --rows 1000000 --against ../before

Each turn is a process of its own; the figures are the best of `--turns`, in seconds, and the most memory of any.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

_READ = """
import resource, sys, time
from hpcjobs.config import DataConfig
from hpcjobs.run_folder.inputs import table_sha256
from hpcjobs.tasks.datasets import load_table
start = time.perf_counter()
table = load_table(DataConfig(name=sys.argv[1]))
read = time.perf_counter()
table_sha256(table)
print(read - start, time.perf_counter() - read, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
_WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta")


def _flat(number: int, draw: random.Random) -> dict[str, Any]:
    question = " ".join(draw.choices(_WORDS, k=30))
    return {"id": f"q{number}", "question": question, "answer": str(number), "n": number, "score": draw.random()}


def _chat(number: int, draw: random.Random) -> dict[str, Any]:
    turns = [("system", "Be good."), ("user", " ".join(draw.choices(_WORDS, k=30)))]
    return {"id": f"q{number}", "messages": [{"role": role, "content": text} for role, text in turns], "n": number}


def _mixed(number: int, draw: random.Random) -> dict[str, Any]:
    options = {letter: draw.choice(_WORDS) for letter in "ABCD"[: draw.randint(2, 4)]}
    return _flat(number, draw) | {"options": options, "value": draw.choice((number, draw.random(), "text"))}


KINDS: dict[str, Callable[[int, random.Random], dict[str, Any]]] = {"flat": _flat, "chat": _chat, "mixed": _mixed}


def write_files(folder: Path, rows: int) -> list[Path]:
    """A file of each kind, and a CSV file of the flat rows."""
    paths = []
    for name, row_of in KINDS.items():
        draw = random.Random(0)
        paths.append(folder / f"{name}.jsonl")
        with paths[-1].open("w") as file:
            file.writelines(json.dumps(row_of(number, draw)) + "\n" for number in range(rows))
    draw = random.Random(0)
    with (folder / "flat.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_flat(0, draw))
        writer.writerows(_flat(number, draw).values() for number in range(rows))
    return [*paths, folder / "flat.csv"]


def measure(checkout: Path, path: Path) -> list[float] | None:
    """Seconds to read and to hash, and megabytes at most; None where the checkout refuses the file."""
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    command = [sys.executable, "-c", _READ, str(path)]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    return [float(word) for word in done.stdout.split()] if done.returncode == 0 else None


def main() -> None:
    """Write the files, read them turn by turn, print a table."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--rows", type=int, default=1_000_000)
    parse.add_argument("--turns", type=int, default=3)
    parse.add_argument("--against", type=Path, help="another checkout")
    args = parse.parse_args()
    checkouts = [Path(__file__).parents[1], *([args.against.resolve()] if args.against else [])]
    with tempfile.TemporaryDirectory() as folder:
        for path in write_files(Path(folder), args.rows):
            turns = [[measure(checkout, path) for checkout in checkouts] for _ in range(args.turns)]
            columns = list(zip(*turns, strict=True))
            print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB, {args.rows} rows")
            for checkout, found in zip(checkouts, columns, strict=True):
                figures = [one for one in found if one]
                best = [min(values) for values in zip(*figures, strict=True)]
                text = "read {:.2f} s, hash {:.2f} s, {:.0f} MB of memory".format(*best) if best else "refused"
                print(f"  {checkout.name:12} {text}", flush=True)


if __name__ == "__main__":
    main()
