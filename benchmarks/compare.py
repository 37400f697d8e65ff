"""compare: a model against itself differs in nothing; against a weaker one the gate fails, and the flips are listed.

    python tools/fetch_real.py real
    python benchmarks/compare.py --real real [--rows 100]

Three runs by the command line on the same rows of ARC-easy: SmolLM2-135M-Instruct on one rank, once more on two, and
the asset model `tiny`. Then `hpcjobs compare` of the first with each of the others, with a gate on accuracy. Says what
was seen and ends with 1 where it is not what it should be.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

GATE = "acc=0.01"
TASK = {
    "type": "choice",
    "prompt": "Question: {{ question }}\nAnswer:",
    "choices": "{{ choices }}",
    "target": "{{ gold }}",
    "metrics": ["acc", "acc_norm"],
}


def hpcjobs(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`hpcjobs words`, as a user types it in `folder`."""
    return subprocess.run([sys.executable, "-m", "hpcjobs", *words], cwd=folder, capture_output=True, text=True)


def run(folder: Path, name: str, model: str, data: Path, rows: int, ranks: int) -> None:
    """A complete run called `name`."""
    config = {"model": {"name": model, "dtype": "float32"}, "data": {"name": str(data), "max_samples": rows}}
    (folder / f"{name}.yaml").write_text(json.dumps(config | {"task": TASK}))  # JSON is YAML
    shape = ("--executor", "local", "--ntasks-per-node", str(ranks), "--gpus", "0")
    done = hpcjobs(folder, "submit", "eval", "--config", f"{name}.yaml", *shape, "--name", name, "--wait", "--yes")
    if done.returncode:
        raise SystemExit(f"run {name} ended with {done.returncode}\n{done.stdout}{done.stderr}")


def compared(folder: Path, a: str, b: str) -> tuple[int, dict[str, Any]]:
    """(exit code, what --json says) of a comparison with the gate; what people are shown is printed."""
    words = ("compare", a, b, "--gate", GATE)
    shown = hpcjobs(folder, *words, "--limit", "3")
    print(f"$ hpcjobs {' '.join(words)} --limit 3\n{shown.stdout}{shown.stderr}exit code {shown.returncode}\n")
    told: dict[str, Any] = json.loads(hpcjobs(folder, *words, "--json").stdout)
    return shown.returncode, told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, default=Path("real"))
    parser.add_argument("--rows", type=int, default=100)
    args = parser.parse_args()
    real = args.real.resolve()
    smol, data = str(real / "SmolLM2-135M-Instruct"), real / "arc_easy.jsonl"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for run_name, model, ranks in (("smol", smol, 1), ("again", smol, 2), ("tiny", "tiny", 1)):
            run(folder, run_name, model, data, args.rows, ranks)
        same, told_same = compared(folder, "smol", "again")
        worse, told_worse = compared(folder, "smol", "tiny")
    seen = {
        "a model against itself: no flips": told_same["flip_count"] == 0,
        "a model against itself: exit code 0": same == 0,
        "against the tiny model: exit code 1": worse == 1,
        f"against the tiny model: {told_worse['flip_count']} flips listed": len(told_worse["flips"]) > 0,
    }
    for what, right in seen.items():
        print(f"{'yes' if right else 'NO':<4}{what}")
    return 0 if all(seen.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
