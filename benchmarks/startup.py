"""What a user waits for before anything happens: `hpcjobs --help` against `import typer`, and a dry run.

    python benchmarks/startup.py [--runs 9]

Both sides are timed in turn in one run, as whole processes; the ratio of the medians is what to quote.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

PAIRS = {
    "--help": (["-m", "hpcjobs", "--help"], ["-c", "import typer"]),
    "submit --dry-run": (
        ["-m", "hpcjobs", "submit", "eval", "--dry-run"],
        ["-c", "import typer, pydantic, pyarrow, submitit"],
    ),
}


def seconds(words: list[str]) -> float:
    """Wall seconds of one python process."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    for name, (ours, theirs) in PAIRS.items():
        pairs = [(seconds(ours), seconds(theirs)) for _ in range(runs + 1)][1:]  # the first fills the page cache
        our, their = statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)
        print(f"hpcjobs {name:<18} {our:.3f} s   python {theirs[1]!r:<48} {their:.3f} s   ratio {our / their:.2f}")


if __name__ == "__main__":
    main()
