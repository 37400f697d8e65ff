"""`hpcjobs runs` with many runs under one root, while Slurm answers and while slurmctld stands still.

    python -m benchmarks.many_runs [--runs 500] [--live 20] [--damaged 5] [--rows 200]

Starts a cluster of two nodes, submits the live runs to it, and makes the others: copies of one finished run, each with
jobs of its own that Slurm has forgotten, the last ones with a file that cannot be read. Then `runs` is timed as a whole
process, once for a tenth of the runs and once for all, and again while slurmctld is stopped by SIGSTOP. Prints seconds
and peak memory (ru_maxrss), and fails unless every run is listed and each damaged one is named with its file.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from benchmarks.processes import Took, hpcjobs
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.submission import Launch, record_launch
from tests.runs import plan_run, run_ranks
from tests.slurm.cluster import temporary_cluster
from tests.slurm.site import DUMMY, Site

# What is damaged, in turn.
DAMAGE = {
    "plan.json": b"",
    "config.yaml": b"",
    "submission.json": b'{"launches": [',
    "metrics.json": b"\0\0",
    "claims/0/chunks.parquet": b"PAR1",
}
_FIRST_JOB = 1_000_000  # ids that Slurm has never given


def list_runs(site: Site, root: Path) -> Took:
    """`hpcjobs runs`, as a process."""
    return hpcjobs(["runs"], site.env | {"HPCJOBS_RUNS": str(root)})


def make_finished(root: Path, runs: int, damaged: int, rows: int) -> None:
    """Copies of one finished run; the last of them damaged."""
    root.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        paths = plan_run(Path(folder) / "run", rows)
        run_ranks(paths, 1)
        for number in range(runs):
            copy = RunPaths(shutil.copytree(paths.root, root / f"done{number:04}"))
            jobs = {"work": str(_FIRST_JOB + 2 * number), "merge": str(_FIRST_JOB + 2 * number + 1)}
            record_launch(copy, Launch(number=0, executor="slurm", jobs=jobs, shape="1 node", ranks=1))
            if number >= runs - damaged:
                name = list(DAMAGE)[number % len(DAMAGE)]
                (copy.root / name).write_bytes(DAMAGE[name])


def submit(site: Site, live: int) -> None:
    """Submit runs that last, and wait until their ranks work."""
    slow = ("--data", "unified", "--max-samples", "400", "--set", "model.dummy_delay=10")
    for number in range(live):
        site.hpcjobs("submit", "eval", "--name", f"live{number:02}", "--nodes", "1", "--gpus", "0", *slow, *DUMMY)
    for number in range(live):
        site.until("a rank", lambda name=f"live{number:02}": any(r.live for r in site.look(name).ranks))  # type: ignore[misc]


def check(said: Took, runs: int, live: int, damaged: int) -> None:
    """Every run is listed, the live ones as running, each damaged one with its file."""
    lines = said.output.splitlines()
    assert len(lines) == runs, f"{len(lines)} of {runs} runs are listed"
    named = [line for line in lines if " damaged " in line and " cannot be read: " in line]
    assert len(named) == damaged, f"{len(named)} of {damaged} damaged runs are named"
    working = [line for line in lines if "  live" in line and "1 rank live" in line]
    assert len(working) == live, f"{len(working)} of {live} live runs are shown as such"


def measure(site: Site, few: Path, args: argparse.Namespace) -> None:
    """Time both lists, with and without slurmctld."""
    for what in ("Slurm answers", "slurmctld stands still"):
        if what != "Slurm answers":
            site.cluster.pause_ctld()
        try:
            small, said = list_runs(site, few), list_runs(site, site.folder / "runs")
        finally:
            site.cluster.continue_ctld()
        check(said, args.runs, args.live, args.damaged)
        for listing in (small, said):
            runs = len(listing.output.splitlines())
            print(f"{what}: {runs} runs, {listing.seconds:.2f} s, {listing.peak / 2**20:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--live", type=int, default=20)
    parser.add_argument("--damaged", type=int, default=5)
    parser.add_argument("--rows", type=int, default=200)
    args = parser.parse_args()
    with temporary_cluster(nodes=2, gpus=0, cpus=32) as cluster, tempfile.TemporaryDirectory() as folder:
        site = Site(cluster, Path(folder))
        make_finished(site.folder / "runs", args.runs - args.live, args.damaged, args.rows)
        make_finished(site.folder / "few", args.runs // 10, 0, args.rows)
        submit(site, args.live)
        measure(site, site.folder / "few", args)


if __name__ == "__main__":
    main()
