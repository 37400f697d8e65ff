"""Tokens a second of `submit train` against a plain loop over accelerate, on the same rows, model and machine.

    python -m benchmarks.training --model /data/SmolLM2-135M-Instruct --data /data/gsm8k.jsonl

Both sides learn the same global batches' worth of rows: chats of the data's `question` and `answer`, loss on answers
only, AdamW in float32, the same number of samples at once. Three runs, one after the other: the plain loop, `submit
train`, and `submit train` with packing. Counted are tokens without padding, in the steps after the first two. Prints
each side's tokens/s, validation loss before and after, and the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpcjobs.paths import RunPaths
from hpcjobs.slurm import clean_environment
from hpcjobs.training.records import read_curve

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


def plain(setting: Setting) -> dict[str, float]:
    """The loop that one writes from accelerate's quick tour."""
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
        ids = ids[: setting.length]
        return {"input_ids": ids, "labels": [-100] * len(head) + ids[len(head) :]}

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
    return {"tokens_per_s": sum(tokens[_WARM_UP:]) / (times[-1] - times[_WARM_UP])}


def ours(setting: Setting, folder: Path, packing: bool, lora: bool) -> dict[str, float]:
    """`submit train` in one process of its own; its journal tells."""
    section: dict[str, Any] = {
        "global_batch": setting.batch, "micro_batch": setting.micro, "max_length": setting.length,
        "max_steps": setting.steps, "learning_rate": setting.rate, "scheduler": "constant",
        "checkpoint_every": 100_000, "packing": packing,
    }  # fmt: skip
    if packing:  # a row of several samples does the work of several rows
        section |= {"global_batch": max(1, setting.batch // 2), "micro_batch": max(1, setting.micro // 2)}
    if lora:
        section["lora"] = {"rank": 16, "alpha": 32}
    config = {
        "model": {"name": setting.model}, "data": {"name": setting.data}, "train": section,
        "task": {"messages": [{"role": "user", "content": "{{ question }}"}], "target": "{{ answer }}"},
        "cluster": {"executor": "debug"},
    }  # fmt: skip
    path = folder / f"train-{packing}-{lora}.yaml"
    path.write_text(json.dumps(config))
    run = folder / path.stem
    command = [sys.executable, "-m", "hpcjobs", "submit", "train", "--config", str(path), "--run-dir", str(run)]
    done = subprocess.run(command, env=_env(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    steps = read_curve(RunPaths(run)).steps
    late = [steps[step] for step in sorted(steps)][_WARM_UP:]
    return {"tokens_per_s": sum(step.tokens for step in late) / sum(step.seconds for step in late)}


def _env() -> dict[str, str]:
    threads = os.environ.get("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    return clean_environment() | {"OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"}


def _plain_process(setting: Setting) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.training", "--plain", json.dumps(vars(setting))]
    done = subprocess.run(command, env=_env(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def sides(setting: Setting, folder: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """Each side's name and figures, as they come."""
    yield "plain accelerate loop", _plain_process(setting)
    yield "submit train", ours(setting, folder, packing=False, lora=False)
    yield "submit train, packing", ours(setting, folder, packing=True, lora=False)


def main() -> None:
    """Run all sides and print them."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--model", default="tiny")
    parse.add_argument("--data", default="")
    parse.add_argument("--steps", type=int, default=6)
    parse.add_argument("--batch", type=int, default=8, help="samples a step")
    parse.add_argument("--micro", type=int, default=4, help="samples at once")
    parse.add_argument("--length", type=int, default=512, help="most tokens of a sample, and of a packed row")
    parse.add_argument("--rate", type=float, default=2e-5)
    parse.add_argument("--plain", default="", help=argparse.SUPPRESS)
    args = parse.parse_args()
    if args.plain:
        print(json.dumps(plain(Setting(**json.loads(args.plain)))))
        return
    setting = Setting(args.model, args.data, args.steps, args.batch, args.micro, args.length, args.rate)
    base = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name, found in sides(setting, Path(folder)):
            rate = found["tokens_per_s"]
            base = base or rate
            print(f"{name:<24} {rate:8.1f} tokens/s  ratio {rate / base:.2f}", flush=True)


if __name__ == "__main__":
    main()
