"""What a user waits for before anything happens: `hpcjobs --help`, a dry run, and `submit` until the job is queued.

    python benchmarks/startup.py [--runs 9] [--slurm] [--model DIR] [--data FILE]

The first two stand against a python that imports the same libraries. With `--slurm` a cluster of two nodes is started,
and `submit eval` of a model and 1,000 rows on it is timed from the start of the process until it returns with the jobs
in the queue, beside a bare `sbatch` of two jobs. All sides are timed in turn in one run, as whole processes; the
medians and their ratio are what to quote.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PAIRS = {
    "--help": (["-m", "hpcjobs", "--help"], ["-c", "import typer"]),
    "submit --dry-run": (
        ["-m", "hpcjobs", "submit", "eval", "--dry-run"],
        ["-c", "import typer, pydantic, pyarrow, submitit"],
    ),
}
ROWS = 1000


def seconds(work: Callable[[], object]) -> float:
    """Wall seconds of one piece of work."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def python(words: list[str]) -> None:
    """One python process, to its end."""
    subprocess.run([sys.executable, *words], check=True, capture_output=True)


def medians(runs: int, our: Callable[[], object], their: Callable[[], object]) -> tuple[float, float]:
    """Median seconds of both sides, timed in turn; the first pair fills the page cache and does not count."""
    pairs = [(seconds(our), seconds(their)) for _ in range(runs + 1)][1:]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def submits(runs: int, model: str, data: Path | None) -> tuple[float, float]:
    """Median seconds of `submit eval` with 1,000 rows on a cluster of its own, and of two bare sbatch calls."""
    from tests.slurm.cluster import temporary_cluster
    from tests.slurm.site import Site

    later = "now+1hour"  # queued, and not begun while the next one is timed
    with temporary_cluster(nodes=2, gpus=4, cpus=8) as cluster, tempfile.TemporaryDirectory() as folder:
        site = Site(cluster, Path(folder))
        rows = site.folder / "rows.jsonl"
        rows.write_text("".join(_lines(data)))
        task = {"prompt": "{{ question }}", "target": "{{ answers }}", "metrics": ["f1"]}
        config = {"model": {"name": model}, "data": {"name": str(rows)}, "task": task}
        (site.folder / "eval.yaml").write_text(json.dumps(config))  # JSON is YAML
        words = ["submit", "eval", "--config", "eval.yaml", "--nodes", "2", "--ntasks-per-node", "1", "--gpus", "0"]

        def our() -> None:
            site.run(sys.executable, "-m", "hpcjobs", *words, "--yes", "--sbatch", f"begin={later}")

        def their() -> None:
            for _ in range(2):
                site.run("sbatch", f"--begin={later}", "--output=/dev/null", "--wrap", "true")

        found = medians(runs, our, their)
        queued = site.run("squeue", "--noheader", "--format=%i").stdout.split()
        assert len(queued) == 4 * (runs + 1), f"{len(queued)} jobs are queued"
        site.run("scancel", *queued)
    return found


def _lines(data: Path | None) -> list[str]:
    if data is not None:
        return data.read_text(encoding="utf-8").splitlines(keepends=True)[:ROWS]
    return [json.dumps({"question": f"What is {n} + {n}?", "answers": [str(2 * n)]}) + "\n" for n in range(ROWS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--slurm", action="store_true", help="time submit on a cluster of its own, too")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--data", type=Path, help="a .jsonl with the columns question and answers")
    args = parser.parse_args()
    for name, (ours, theirs) in PAIRS.items():
        our, their = medians(args.runs, functools.partial(python, ours), functools.partial(python, theirs))
        print(f"hpcjobs {name:<18} {our:.3f} s   python {theirs[1]!r:<48} {their:.3f} s   ratio {our / their:.2f}")
    if args.slurm:
        our, their = submits(args.runs, args.model, args.data)
        print(f"hpcjobs submit eval, {ROWS} rows, to jobs in the queue {our:.3f} s   two bare sbatch {their:.3f} s")


if __name__ == "__main__":
    main()
