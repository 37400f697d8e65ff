"""From a rank's start to its first finished sample, against the script that everybody writes first.

    HPCJOBS_REAL=DIR python benchmarks/first_sample.py [--model DIR] [--runs 5] [--ranks 1] [--profile]

The bare script imports transformers, loads the same model in the same dtype, generates one answer to the same chat and
prints it. The other side is what a Slurm job runs: `python -m hpcjobs.worker RUN`, until the first line stands in a
journal; with `--ranks N` N of them, which meet first. Both sides are timed in turn in one run, from the start of the
process, the weights in the page cache; the ratio of the medians is what to quote.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from hpcjobs.config import Config
from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.launch.slurm import clean_environment
from hpcjobs.plan.eval import make_plan
from hpcjobs.run_folder.paths import RunPaths

QUESTION = "Name one river of France."
TOKENS = 16
BARE = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
import torch

name, question, tokens = sys.argv[1], sys.argv[2], int(sys.argv[3])
tokenizer = AutoTokenizer.from_pretrained(name)
model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
chat = [{"role": "user", "content": question}]
ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
made = model.generate(**ids, max_new_tokens=tokens, do_sample=False)
print(repr(tokenizer.decode(made[0, ids["input_ids"].shape[1]:], skip_special_tokens=True)), flush=True)
"""
_DEADLINE = 300.0


def bare(model: Path) -> tuple[float, str]:
    """Seconds from the start of the bare script to its answer, and the answer."""
    started = time.perf_counter()
    command = [sys.executable, "-c", BARE, str(model), QUESTION, str(TOKENS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_env(), text=True) as process:
        assert process.stdout is not None
        answer = process.stdout.readline()
        took = time.perf_counter() - started
    return took, str(ast.literal_eval(answer))


def planned(folder: Path, model: Path) -> RunPaths:
    """A run of one sample a rank."""
    data = folder / "question.jsonl"
    data.write_text(json.dumps({"question": QUESTION}) + "\n")
    config: Config = validate(
        Layer(
            {
                "model": {"name": str(model), "dtype": "float32"},
                "data": {"name": str(data)},
                "task": {
                    "messages": ({"role": "user", "content": "{{ question }}"},),
                    "generation": {"max_new_tokens": TOKENS},
                },
            }
        )
    )
    draft = make_plan("generate", config, folder / "run")
    draft.write()
    return draft.paths


def ours(model: Path, ranks: int, words: list[str]) -> tuple[float, str]:
    """Seconds from the start of the ranks to the first line of a journal, and the answer in it."""
    with tempfile.TemporaryDirectory() as folder:
        paths = planned(Path(folder), model)
        started = time.perf_counter()
        with contextlib.ExitStack() as stack:
            for rank in range(ranks):
                stack.enter_context(_rank(paths, rank, ranks, words))
            line = _first_line(paths, started + _DEADLINE)
            took = time.perf_counter() - started
    answer: str = json.loads(line)["completion"]
    return took, answer


@contextlib.contextmanager
def _rank(paths: RunPaths, rank: int, ranks: int, words: list[str]) -> Iterator[None]:
    """One rank as submitit's local executor starts it."""
    own = {"SUBMITIT_LOCAL_NTASKS": ranks, "SUBMITIT_LOCAL_GLOBALID": rank, "SUBMITIT_LOCAL_JOB_ID": "1"}
    env = _env() | {name: str(value) for name, value in own.items()}
    command = [sys.executable, *words, "-m", "hpcjobs.worker", str(paths.root)]
    with subprocess.Popen(command, env=env, stderr=None if words else subprocess.DEVNULL) as process:
        yield
        process.wait()


def _first_line(paths: RunPaths, deadline: float) -> bytes:
    while time.perf_counter() < deadline:
        for journal in paths.journals():
            if line := journal.read_bytes().partition(b"\n")[0]:
                return line
        time.sleep(0.002)
    raise SystemExit("no rank has finished a sample")


def _env() -> dict[str, str]:
    return dict(clean_environment()) | {"HF_HUB_OFFLINE": "1"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("HPCJOBS_REAL", "real")) / "SmolLM2-135M-Instruct"
    parser.add_argument("--model", type=Path, default=default)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--profile", action="store_true", help="one run of ours, with the times of its imports")
    args = parser.parse_args()
    if args.profile:
        print(ours(args.model, args.ranks, ["-X", "importtime"]))
        return
    pairs = [(ours(args.model, args.ranks, []), bare(args.model)) for _ in range(args.runs + 1)][1:]
    for (_, our), (_, their) in pairs:
        assert our == their, f"the answers differ: {our!r} and {their!r}"
    sides = [[side[0] for side in both] for both in zip(*pairs, strict=True)]
    for name, times in zip((f"hpcjobs, {args.ranks} rank(s)", "bare script"), sides, strict=True):
        print(f"{name:<20} median {statistics.median(times):.2f} s  ({', '.join(f'{one:.2f}' for one in times)})")
    medians, best = [statistics.median(times) for times in sides], [min(times) for times in sides]
    print(f"ratio of medians {medians[0] / medians[1]:.2f}, of the shortest {best[0] / best[1]:.2f}")


if __name__ == "__main__":
    main()
