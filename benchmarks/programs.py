"""Programs that nobody here wrote, under srun or torchrun alone and under hpcjobs: the same exit code and last loss.

    python -m benchmarks.programs CHECKOUTS [--only WORD ...] [--results results.jsonl] [--write docs/programs.md]

CHECKOUTS has a folder for each source of benchmarks/programs_list.py: a checkout of the project. Each program is
copied, changed as its entry says (data to local files, the model to the tiny one), and run on 1x2 and 2x1 (nodes x
tasks) of a real Slurm of two nodes on this machine, whose names resolve: as root, in a mount namespace of its own.
What is in the results already is not run again. This Python has to have what the programs import.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.programs_data import make_data
from benchmarks.programs_list import PROGRAMS
from benchmarks.programs_run import Program, run
from benchmarks.programs_table import UNDER, Results, page, read_results
from tests.slurm.cluster import Cluster, temporary_cluster

_UNSHARED = "HPCJOBS_PROGRAMS_HOSTS"


def main() -> None:
    args = _arguments()
    if _UNSHARED not in os.environ:
        _again_where_nodes_have_names()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    chosen = [one for one in PROGRAMS if not args.only or any(word in one.name for word in args.only)]
    results = read_results(args.results)
    _run_all(chosen, results, args)
    if args.write:
        commits = {one.source: _commit(args.checkouts / one.source) for one in PROGRAMS}
        args.write.write_text(page(PROGRAMS, results, commits))


def _run_all(chosen: list[Program], results: Results, args: argparse.Namespace) -> None:
    if all((one.name, shape, under) in results for one in chosen for shape in one.shapes for under in UNDER):
        return
    with tempfile.TemporaryDirectory(prefix="programs-", dir="/tmp") as folder, temporary_cluster(gpus=0) as cluster:
        data = Path(folder, "data")
        data.mkdir()
        make_data(data)
        for program in chosen:
            _both_ways(program, cluster, (args.checkouts.absolute(), data, Path(folder)), results, args)


def _both_ways(
    program: Program, cluster: Cluster, place: tuple[Path, Path, Path], results: Results, args: argparse.Namespace
) -> None:
    """Run what is not in the results yet; nothing under hpcjobs of a program that does not run alone."""
    for shape, under in itertools.product(program.shapes, UNDER):
        if (program.name, shape, under) in results:
            continue
        found = _one(program, under, shape, cluster, place, args.keep)
        if under == "alone" and found["code"]:
            print(f"{program.name} does not run alone on {shape}: exit code {found['code']}", flush=True)
            return
        results[program.name, shape, under] = found
        _append(args.results[-1], {"program": program.name, "shape": shape, "under": under, **found})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.programs", description=__doc__.splitlines()[0])
    parser.add_argument("checkouts", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--results", type=Path, nargs="+", default=[Path("programs.jsonl")], help="the last one grows")
    parser.add_argument("--write", type=Path, help="the page to write, docs/programs.md")
    parser.add_argument("--keep", type=Path, help="a folder for the outputs")
    return parser.parse_args()


def _again_where_nodes_have_names() -> None:
    """Start this again where node1 and node2 resolve, as the names of a cluster's nodes do."""
    with tempfile.NamedTemporaryFile("w", suffix=".hosts", delete=False) as hosts:
        hosts.write(Path("/etc/hosts").read_text() + "\n127.0.0.1 node1 node2\n")
    os.chmod(hosts.name, 0o644)
    script = 'mount --bind "$0" /etc/hosts && exec "$@"'
    words = [sys.executable, "-m", "benchmarks.programs", *sys.argv[1:]]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, hosts.name, *words], env=os.environ | {_UNSHARED: "1"}, check=False
    )
    Path(hosts.name).unlink()
    sys.exit(done.returncode)


def _one(
    program: Program, under: str, shape: str, cluster: Cluster, place: tuple[Path, Path, Path], keep: Path | None
) -> dict[str, Any]:
    checkouts, data, top = place
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=top))
    outcome = run(program, under, shape, cluster, (checkouts, data, folder))
    print(f"{program.name} {shape} {under}: {outcome}", flush=True)
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
        name = f"{program.source}-{Path(program.path).stem}-{'-'.join(program.command[:1])}-{shape}-{under}"
        shutil.copyfile(folder / "output", keep / name)
    shutil.rmtree(folder, ignore_errors=True)
    return {"code": outcome.code, "last": outcome.last, "seconds": round(outcome.seconds, 1)}


def _append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def _commit(checkout: Path) -> str:
    """The commit of a checkout: git's, or the file COMMIT in it, where it was unpacked from an archive."""
    named = checkout / "COMMIT"
    if named.exists():
        return named.read_text().strip()
    words = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
