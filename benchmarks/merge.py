"""Merging many results, against reading and sorting the same journals with pyarrow alone.

    python benchmarks/merge.py [--rows 10000000] [--ranks 256] [--folder FOLDER] [--keep]

Makes a finished run (a real plan, synthetic claims and journals: about 500 bytes of disk a row), then times two child
processes one after the other: `merge` of hpcjobs, which also checks, joins the inputs and folds the scores, and
`pyarrow.json.read_json` of every journal, concatenated, sorted by index and written as parquet with zstd, in as much
memory as that takes. Prints rows a second and peak memory (ru_maxrss) of both, and the ratio of the rates.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.synthetic import plan_synthetic, settle, write_data, write_journals
from hpcjobs.merge.eval import merge
from hpcjobs.run_folder.paths import RunPaths

_BYTES_A_ROW = 800
_ERROR = {"type": "string", "message": "string"}


def ours(root: Path) -> None:
    """The merge of a run."""
    merged = merge(RunPaths(root))
    assert merged.complete, f"{len(merged.missing)} rows are missing"


def plain(root: Path) -> None:
    """The same journals by pyarrow, whole in memory."""
    import pyarrow as pa
    import pyarrow.json as pj
    import pyarrow.parquet as pq

    error = pa.struct(list(_ERROR.items()))  # one that is null in a whole block has no type
    options = pj.ParseOptions(explicit_schema=pa.schema([("error", error)]))
    tables = [pj.read_json(path, parse_options=options) for path in RunPaths(root).journals()]
    table = pa.concat_tables(tables, promote_options="permissive")
    del tables
    pq.write_table(table.sort_by("index"), root / "plain.parquet", compression="zstd")


def make(root: Path, rows: int, ranks: int) -> None:
    """A finished run."""
    data = root.with_suffix(".parquet")
    write_data(data, rows)
    paths = plan_synthetic(root, data, ranks)
    settle(paths, ranks)
    size = write_journals(paths, ranks)
    print(f"{rows:,} rows in {ranks} journals of {size / 1e9:.2f} GB", file=sys.stderr)


def child(work: Callable[[], None]) -> None:
    """Do one thing in this process and say what it took."""
    started = time.perf_counter()
    work()
    seconds, peak = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak": peak}))


def measure(what: str, root: Path, rows: int, ranks: int) -> float:
    """Seconds of one step in a child process, which are told. This process stays small: a child inherits its peak."""
    command = [sys.executable, "-m", "benchmarks.merge", "--child", what, "--folder", str(root)]
    command += ["--rows", str(rows), "--ranks", str(ranks)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    seconds = float(found["seconds"])
    print(
        f"{what:<6} {seconds:8.1f} s  {rows / seconds:12,.0f} rows/s  peak {found['peak'] / 1e6:7,.0f} MB", flush=True
    )
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--ranks", type=int, default=256)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--keep", action="store_true", help="leave the run folder there")
    parser.add_argument("--child", choices=["make", "ours", "plain"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        root, rows, ranks = options.folder, options.rows, options.ranks
        steps = {"make": lambda: make(root, rows, ranks), "ours": lambda: ours(root), "plain": lambda: plain(root)}
        return child(steps[options.child])
    if shutil.disk_usage(options.folder).free < options.rows * _BYTES_A_ROW:
        sys.exit(
            f"{options.folder} has less than {options.rows * _BYTES_A_ROW / 1e9:.1f} GB free: choose another --folder"
        )
    folder = Path(tempfile.mkdtemp(dir=options.folder, prefix="hpcjobs-merge-"))
    try:
        made, theirs, own = (
            measure(what, folder / "run", options.rows, options.ranks) for what in ("make", "plain", "ours")
        )
        print(f"ratio  {theirs / own:8.2f}  (rate of ours / rate of plain; made in {made:.0f} s)")
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
