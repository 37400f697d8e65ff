"""What checkpoints cost a training: written beside the steps, against written between them, against none.

    python -m benchmarks.checkpoints --model /data/SmolLM2-135M-Instruct --data /data/gsm8k.jsonl

`submit train` on local ranks runs the same steps three ways in turn, `--rounds` times. Counted are the seconds from
the begin of the second step to the end of the last one; the checkpoint at the very end is not among them. A checkpoint
costs what they take more than the run without, divided by how many there are.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hpcjobs.launch.slurm import clean_environment
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.training.steps import read_curve


def seconds(args: argparse.Namespace, every: int, beside: bool) -> float:
    """Of the counted steps of one run."""
    section: dict[str, Any] = {
        "global_batch": args.batch, "micro_batch": args.micro, "max_length": args.length, "max_steps": args.steps,
        "learning_rate": 2e-5, "scheduler": "constant", "checkpoint_every": every, "async_checkpoints": beside,
    }  # fmt: skip
    config = {
        "model": {"name": args.model}, "data": {"name": args.data}, "train": section,
        "task": {"messages": [{"role": "user", "content": "{{ question }}"}], "target": "{{ answer }}"},
        "cluster": {"executor": "local", "ntasks_per_node": args.ranks},
    }  # fmt: skip
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path, run = Path(folder, "train.yaml"), Path(folder, "run")
        path.write_text(json.dumps(config))
        command = [sys.executable, "-m", "hpcjobs", "submit", "train", "--config", str(path), "--run-dir", str(run)]
        env = clean_environment() | {"HF_HUB_OFFLINE": "1"}
        done = subprocess.run([*command, "--wait", "--yes"], env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        steps = read_curve(RunPaths(run)).steps
    first, last = steps[2], steps[args.steps]
    return last.started_at + last.seconds - first.started_at


def main() -> None:
    """Run all three and print them."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--model", default="tiny")
    parse.add_argument("--data", default="unified")
    parse.add_argument("--rounds", type=int, default=2)
    parse.add_argument("--ranks", type=int, default=1)
    parse.add_argument("--steps", type=int, default=20)
    parse.add_argument("--every", type=int, default=5, help="steps between two checkpoints")
    parse.add_argument("--batch", type=int, default=2, help="samples a step")
    parse.add_argument("--micro", type=int, default=2, help="samples at once")
    parse.add_argument("--length", type=int, default=256, help="most tokens of a sample")
    parse.add_argument("--folder", default=None, help="where runs are written; default: where temporary files go")
    args = parse.parse_args()
    counted = args.steps // args.every - 1
    sides = {"no checkpoints": (10**6, False), "between the steps": (args.every, False), "beside": (args.every, True)}
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, (every, beside) in sides.items():
            found[name].append(seconds(args, every, beside))
    base = statistics.median(found["no checkpoints"])
    for name, times in found.items():
        middle = statistics.median(times)
        each = f"; {(middle - base) / counted:6.2f} s a checkpoint" if name != "no checkpoints" else ""
        print(f"{name:<18} median {middle:7.2f} s of {args.steps - 1} steps, {middle / base:.3f}{each}")


if __name__ == "__main__":
    main()
