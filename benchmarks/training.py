"""Tokens a second of `submit train` against a plain loop over accelerate, on the same rows, model and machine.

    python -m benchmarks.training --model /data/SmolLM2-135M-Instruct --data /data/gsm8k.jsonl
    python -m benchmarks.training --part learn --model /data/SmolLM2-135M-Instruct --data /data/gsm8k.jsonl

The part `learn` is no timing: 20 steps with all weights and 20 with adapters, and the validation loss on the way.

Both sides learn the same global batches' worth of rows: chats of the data's `question` and `answer`, loss on answers
only, AdamW in float32, the same number of samples at once. The plain loop, `submit train`, and `submit train` with
packing run in turn, `--rounds` times, each in a process of its own. Counted are tokens without padding, in the steps
after the first two of a process. Prints the median and best tokens/s of a step of each side, and the ratios to the
plain loop; where others use the machine, the best steps are what to compare.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcjobs.launch.slurm import clean_environment
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.training.steps import StepRecord, read_curve

_WARM_UP = 2


@dataclass(frozen=True)
class Setting:
    """What both sides are given."""

    model: str
    data: str
    steps: int
    batch: int
    micro: int
    length: int
    rate: float


def plain(setting: Setting) -> list[float]:
    """Tokens/s of each step of the loop that one writes from accelerate's quick tour."""
    import torch
    from accelerate import Accelerator
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rounds = setting.batch // setting.micro
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), gradient_accumulation_steps=rounds)
    tokenizer = AutoTokenizer.from_pretrained(setting.model)
    model = AutoModelForCausalLM.from_pretrained(setting.model, dtype=torch.float32)
    rows = [json.loads(line) for line in Path(setting.data).read_text().splitlines()]

    def encode(row: dict[str, str]) -> dict[str, list[int]]:
        turns = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
        prompt = tokenizer.apply_chat_template(turns[:1], add_generation_prompt=True, tokenize=False)
        head = tokenizer(prompt, add_special_tokens=False).input_ids
        ids = tokenizer(tokenizer.apply_chat_template(turns, tokenize=False), add_special_tokens=False).input_ids
        ids, labels = ids[: setting.length], [-100] * len(head) + ids[len(head) :]
        return {"input_ids": ids, "labels": labels[: setting.length]}

    def pad(samples: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        width = max(len(sample["input_ids"]) for sample in samples)
        fill = {"input_ids": tokenizer.pad_token_id, "labels": -100}
        batch = {k: torch.tensor([s[k] + [v] * (width - len(s[k])) for s in samples]) for k, v in fill.items()}
        lengths = torch.tensor([len(sample["input_ids"]) for sample in samples])
        return batch | {"attention_mask": (torch.arange(width) < lengths[:, None]).long()}

    data: Any = [encode(row) for row in rows[: setting.steps * setting.batch]]
    loader = torch.utils.data.DataLoader(
        data, setting.micro, shuffle=True, collate_fn=pad, generator=torch.Generator().manual_seed(0)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=setting.rate)
    model, optimizer, loader = accelerator.prepare(model.train(), optimizer, loader)
    times, tokens = [time.monotonic()], [0]
    for batch in loader:
        with accelerator.accumulate(model):
            loss = model(**batch).loss
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        tokens[-1] += int(batch["attention_mask"].sum())
        if accelerator.sync_gradients:
            loss.item()
            times.append(time.monotonic())
            tokens.append(0)
    spans = itertools.pairwise(times)
    return [count / (end - start) for count, (start, end) in zip(tokens, spans, strict=False)][_WARM_UP:]


def ours(setting: Setting, packing: bool) -> list[float]:
    """Tokens/s of each step of `submit train`."""
    section: dict[str, Any] = {
        "global_batch": setting.batch, "micro_batch": setting.micro, "max_length": setting.length,
        "max_steps": setting.steps, "learning_rate": setting.rate, "scheduler": "constant",
        "checkpoint_every": 100_000, "packing": packing,
    }  # fmt: skip
    if packing:  # a row of several samples does the work of several rows
        section |= {"global_batch": max(1, setting.batch // 2), "micro_batch": max(1, setting.micro // 2)}
    steps = _trained(setting, section)
    return [steps[step].tokens_per_s for step in sorted(steps)][_WARM_UP:]


def learn(setting: Setting) -> None:
    """Print how the validation loss falls in 20 steps of two samples, with all weights and with adapters."""
    ways: dict[str, dict[str, Any]] = {
        "all weights": {"learning_rate": 5e-5},
        "adapters of rank 16": {"learning_rate": 1e-3, "lora": {"rank": 16, "alpha": 32}},
    }
    for name, way in ways.items():
        section = {
            "global_batch": 2, "max_length": 256, "max_steps": 20, "scheduler": "constant", "eval_every": 5,
            "checkpoint_every": 100_000, "validation_fraction": 0.012,
        }  # fmt: skip
        steps = _trained(setting, section | way)
        held = [f"{record.eval_loss:.3f} (step {step})" for step, record in steps.items() if record.eval_loss]
        print(f"{name:<20} validation loss {', '.join(held)}")


def _trained(setting: Setting, section: dict[str, Any]) -> dict[int, StepRecord]:
    """The steps of `submit train` in one process of its own; its journal tells."""
    config = {
        "model": {"name": setting.model}, "data": {"name": setting.data}, "train": section,
        "task": {"messages": [{"role": "user", "content": "{{ question }}"}], "target": "{{ answer }}"},
        "cluster": {"executor": "debug"},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path, run = Path(folder, "train.yaml"), Path(folder, "run")
        path.write_text(json.dumps(config))
        _finished("-m", "hpcjobs", "submit", "train", "--config", str(path), "--run-dir", str(run), "--yes")
        return read_curve(RunPaths(run)).steps


def _finished(*words: str) -> str:
    """The output of a python process that has to end well."""
    done = subprocess.run([sys.executable, *words], env=_env(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout


def _env() -> dict[str, str]:
    threads = os.environ.get("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    return clean_environment() | {"OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"}


def _plain_process(setting: Setting) -> list[float]:
    said = _finished("-m", "benchmarks.training", "--plain", json.dumps(vars(setting)))
    found: list[float] = json.loads(said.splitlines()[-1])
    return found


def main() -> None:
    """Run all sides and print them."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--model", default="tiny")
    parse.add_argument("--data", default="")
    parse.add_argument("--part", choices=["speed", "learn"], default="speed")
    parse.add_argument("--rounds", type=int, default=2)
    parse.add_argument("--steps", type=int, default=6, help="of each process")
    parse.add_argument("--batch", type=int, default=4, help="samples a step")
    parse.add_argument("--micro", type=int, default=4, help="samples at once")
    parse.add_argument("--length", type=int, default=512, help="most tokens of a sample, and of a packed row")
    parse.add_argument("--rate", type=float, default=2e-5)
    parse.add_argument("--plain", default="", help=argparse.SUPPRESS)
    args = parse.parse_args()
    if args.plain:
        print(json.dumps(plain(Setting(**json.loads(args.plain)))))
        return
    setting = Setting(args.model, args.data, args.steps, args.batch, args.micro, args.length, args.rate)
    if args.part == "learn":
        learn(setting)
        return
    sides: dict[str, Callable[[], list[float]]] = {
        "plain accelerate loop": lambda: _plain_process(setting),
        "submit train": lambda: ours(setting, packing=False),
        "submit train, packing": lambda: ours(setting, packing=True),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, run in sides.items():
            rates[name] += run()
    base = next(iter(rates.values()))
    for name, found in rates.items():
        middle, best = statistics.median(found), max(found)
        ratios = f"{middle / statistics.median(base):.2f}, {best / max(base):.2f}"
        print(f"{name:<22} median {middle:7.1f}, best {best:7.1f} tokens/s of {len(found)} steps; ratios {ratios}")


if __name__ == "__main__":
    main()
