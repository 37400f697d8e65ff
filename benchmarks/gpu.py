"""One GPU: equal to transformers, and how fast beside it. Needs no network; on a CPU it tries itself out.

    python -m benchmarks.gpu [--part equal] [--part rates] [--part runs] [--size small]

equal: tiny models of several families with random weights in float32. Texts of each engine against `generate`, one row
at a time; log-likelihoods of options against one plain forward pass of each. Then the asset `tiny`, 300 rows at once.
rates: a Llama of `--size` with random weights in bfloat16. New tokens a second of each engine, and of `generate` on
prompts sorted by length in batches of 16 and 128; scored questions a second, and those of padded batches of 16.
runs: `submit eval` and `submit train` with the local executor: engine, device, and losses beside those of the CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
import transformers

from hpcjobs.assets import ASSETS
from hpcjobs.config import GenerationConfig
from hpcjobs.engines.base import Engine
from hpcjobs.engines.loader import ModelSource, load_model, load_tokenizer
from hpcjobs.engines.pick import EngineSpec, make_engine
from hpcjobs.requests import Completion, Pair, Request
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.training.steps import read_curve

Tokens = list[int]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SMALL: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 128, "max_position_embeddings": 1024,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": SMALL,
    "Qwen3": SMALL | {"head_dim": 16},
    "Mistral": SMALL | {"sliding_window": 32},
    "Gemma2": SMALL | {"head_dim": 16, "sliding_window": 32},
    "Mixtral": SMALL | {"num_local_experts": 4, "sliding_window": None},
    "GPTNeoX": {name: value for name, value in SMALL.items() if name != "num_key_value_heads"},
    "GPT2": {"n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 1024},
    "Mamba": {"hidden_size": 64, "num_hidden_layers": 4, "state_size": 8},
}
SIZES: dict[str, dict[str, Any]] = {
    "try": SMALL,
    "small": SMALL | {"hidden_size": 1024, "num_hidden_layers": 16, "num_attention_heads": 16,
                      "num_key_value_heads": 8, "intermediate_size": 4096, "max_position_embeddings": 4096},
    "1b": SMALL | {"hidden_size": 2048, "num_hidden_layers": 22, "num_attention_heads": 32,
                   "num_key_value_heads": 8, "intermediate_size": 8192, "max_position_embeddings": 4096},
    "8b": SMALL | {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
                   "num_key_value_heads": 8, "intermediate_size": 14336, "max_position_embeddings": 4096},
}  # fmt: skip
ASKED = {"messages": [{"role": "user", "content": "{{ messages[0].content }}"}], "target": "{{ messages[1].content }}"}
ENGINES = ("loop", "transformers", "generate")


def random_model(kind: str, values: dict[str, Any], dtype: torch.dtype, spread: float = 1.0, words: int = 0) -> Any:
    """A model with random weights on the GPU, and the tokenizer of the asset `tiny`."""
    tokenizer = load_tokenizer(ModelSource("tiny"))
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    ids |= {"pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(7)
    config = getattr(transformers, f"{kind}Config")(**values, **ids, vocab_size=words or len(tokenizer))
    with torch.device(DEVICE):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    for parameter in model.parameters():
        parameter.data.mul_(spread)
    model.generation_config = transformers.GenerationConfig(**ids)
    return model, tokenizer


def texts(count: int, least: int, most: int, seed: int) -> list[str]:
    """Texts of numbers and words, of `least` to `most` words."""
    draw = random.Random(seed)
    words = ["seven", "plus", "nine", "is", "equal", "to", "what", "number", "the", "of", "12", "and", "345", "minus"]
    return [" ".join(draw.choices(words, k=draw.randint(least, most))) for _ in range(count)]


@torch.inference_mode()
def by_generate(model: Any, tokenizer: Any, prompts: Sequence[str], new: int, batch: int) -> list[str]:
    """Texts of transformers' `generate`, batches sorted by length."""
    order, made = sorted(range(len(prompts)), key=lambda n: -len(prompts[n])), [""] * len(prompts)
    for first in range(0, len(order), batch):
        some = order[first : first + batch]
        inputs = tokenizer([prompts[n] for n in some], return_tensors="pt", padding=True).to(DEVICE)
        inputs.pop("token_type_ids", None)
        output = model.generate(**inputs, do_sample=False, max_new_tokens=new)
        answers = tokenizer.batch_decode(output[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
        for number, text in zip(some, answers, strict=True):
            made[number] = text
    return made


def by_engine(engine: Engine, requests: Sequence[Request]) -> list[Completion]:
    """The engine's completions, in order."""
    done = sorted(engine.stream(iter(requests)), key=lambda completion: completion.index)
    assert not [one.error for one in done if one.error], next(one.error for one in done if one.error)
    return done


def generations(prompts: Sequence[str]) -> list[Request]:
    return [Request(index=n, id=str(n), prompt=prompt) for n, prompt in enumerate(prompts)]


def questions(heads: Sequence[str]) -> list[Request]:
    """Multiple choice with four options."""

    def request(number: int, head: str) -> Request:
        options = (" seven", " twelve and six", " 345", " the answer")
        pairs = tuple(Pair(head, option) for option in options)
        return Request(index=number, id=str(number), prompt=head, task="choice", options=options, pairs=pairs)

    return [request(number, head) for number, head in enumerate(heads)]


@torch.inference_mode()
def alone(model: Any, tokenizer: Any, head: str, option: str) -> float:
    """An option's log-likelihood from one plain forward pass."""
    context, whole = tokenizer(head).input_ids, tokenizer(head + option).input_ids
    logits = model(torch.tensor([whole], device=DEVICE)).logits[0, len(context) - 1 : -1].float()
    return float(logits.log_softmax(-1).gather(1, torch.tensor(whole[len(context) :], device=DEVICE)[:, None]).sum())


@torch.inference_mode()
def padded(model: Any, tokenizer: Any, heads: Sequence[str], batch: int) -> None:
    """Every option of every question in padded batches sorted by length: what most scripts do."""
    pairs = sorted((h + o for h in heads for o in questions([h])[0].options), key=len)
    for first in range(0, len(pairs), batch):
        inputs = tokenizer(pairs[first : first + batch], return_tensors="pt", padding=True).to(DEVICE)
        inputs.pop("token_type_ids", None)
        logits = model(**inputs).logits[:, :-1].float().log_softmax(-1)
        logits.gather(2, inputs.input_ids[:, 1:, None]).squeeze(-1).sum(1).tolist()


def equal() -> Iterator[dict[str, Any]]:
    """Each family's engines against one row at a time."""
    for kind, values in FAMILIES.items():
        model, tokenizer = random_model(kind, values, torch.float32, 4.0)
        prompts = texts(24, 2, 50, 1)
        right = [by_generate(model, tokenizer, [prompt], 24, 1)[0] for prompt in prompts]
        for name in ("auto", *ENGINES):
            line: dict[str, Any] = {"family": kind, "engine": name}
            try:
                engine = make_engine(model, tokenizer, GenerationConfig(max_new_tokens=24), EngineSpec(name, 8))
                made = [one.text for one in by_engine(engine, generations(prompts))]
                line |= {
                    "is": type(engine).__name__,
                    "equal": sum(a == b for a, b in zip(made, right, strict=True)),
                    "of": len(right),
                }
            except Exception as error:  # a refusal is a result
                line["said"] = f"{type(error).__name__}: {error}"[:200]
            yield line
        asked = questions(prompts[:12])
        scored = by_engine(
            make_engine(model, tokenizer, GenerationConfig(), EngineSpec(batch_size=8, task="choice")), asked
        )
        far = max(
            abs(ours - alone(model, tokenizer, str(request.prompt), option))
            for request, one in zip(asked, scored, strict=True)
            if one.likelihood
            for ours, option in zip(one.likelihood.logprobs, request.options, strict=True)
        )
        yield {"family": kind, "engine": "options", "largest difference": far}

    yield from many()


def many() -> Iterator[dict[str, Any]]:
    """300 questions at once: each engine's texts against those of the CPU."""
    rows = pq.read_table(ASSETS / "drills.parquet").slice(0, 300).to_pylist()
    requests = [Request(index=n, id=str(n), prompt=row["messages"][:1]) for n, row in enumerate(rows)]
    generation = GenerationConfig(max_new_tokens=32)
    right = list[str]()
    for device, dtype in (("cpu", torch.float32), (DEVICE, torch.float32), (DEVICE, torch.bfloat16)):
        model, tokenizer = load_model("tiny", device, dtype)
        for name in ENGINES:
            engine = make_engine(model, tokenizer, generation, EngineSpec(name, 256))
            made = [one.text for one in by_engine(engine, requests)]
            right = right or made
            same = sum(a == b for a, b in zip(made, right, strict=True))
            yield {"many": name, "device": device, "dtype": str(dtype), "equal": same, "of": len(made)}


def timed(work: Callable[..., Any], *args: Any) -> float:
    """Seconds of `work(*args)`, the GPU's included."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work(*args)
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def rate(side: str, seconds: float, unit: str, count: int, batch: int | None = None) -> dict[str, Any]:
    """What a side did, and how fast; `batch` is the engine's own."""
    rows = {} if batch is None else {"batch": batch}
    return {"side": side, **rows, "seconds": seconds, f"{unit}/s": count / seconds}


def rates(size: str, rows: int, new: int, batches: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Rates of each side, the same prompts in one process; each side has run eight rows before."""
    dtype = torch.bfloat16 if DEVICE == "cuda" else torch.float32
    model, tokenizer = random_model("Llama", SIZES[size], dtype, words=32_000)
    model.generation_config.eos_token_id = None  # no row ends early: both sides make the same number of tokens
    parameters = sum(p.numel() for p in model.parameters())
    yield {"parameters": parameters, "rows": rows, "new tokens a row": new, "dtype": str(dtype), "device": DEVICE}
    prompts = texts(rows, 10, 100, 2)
    for batch in batches:
        by_generate(model, tokenizer, prompts[:8], new, batch)
        seconds = timed(by_generate, model, tokenizer, prompts, new, batch)
        yield rate(f"generate by hand, batches of {batch}", seconds, "new tokens", rows * new)
    for name in ENGINES:
        engine = make_engine(model, tokenizer, GenerationConfig(max_new_tokens=new), EngineSpec(name, "auto"))
        by_engine(engine, generations(prompts[:8]))
        seconds = timed(by_engine, engine, generations(prompts))
        yield rate(f"engine {name}", seconds, "new tokens", rows * new, engine.batch_size)
    shots = " ".join(texts(5, 15, 25, 3))
    for what, heads in {
        "5 shots": [f"{shots} {text}" for text in texts(rows, 3, 15, 4)],
        "0 shots": texts(rows, 3, 15, 5),
    }.items():
        padded(model, tokenizer, heads[:4], 16)
        seconds = timed(padded, model, tokenizer, heads, 16)
        yield rate(f"options by hand, {what}", seconds, "questions", rows)
        engine = make_engine(model, tokenizer, GenerationConfig(), EngineSpec(task="choice"))
        by_engine(engine, questions(heads[:4]))
        seconds = timed(by_engine, engine, questions(heads))
        yield rate(f"options, {what}", seconds, "questions", rows, engine.batch_size)


def runs() -> Iterator[dict[str, Any]]:
    """Whole commands with the local executor, on the GPU and without it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        configs = {"eval": _eval_config(folder), "train": _train_config(folder)}
        for job, config in configs.items():
            for where in ("gpu", "cpu"):
                yield _run(job, config, folder / f"{job}-{where}", gpus=1 if where == "gpu" and DEVICE == "cuda" else 0)
        losses = [read_curve(RunPaths(folder / f"train-{where}")).steps for where in ("gpu", "cpu")]
        pairs = [(losses[0][step].loss, losses[1][step].loss) for step in losses[1]]
        far = max(abs(gpu - cpu) / abs(cpu) for gpu, cpu in pairs)
        yield {"train": "largest relative difference of a loss, GPU and CPU", "value": far, "steps": len(pairs)}


def _run(job: str, config: str, run: Path, gpus: int) -> dict[str, Any]:
    """One command with a run folder of its own, and what it and its ranks said."""
    command = [sys.executable, "-m", "hpcjobs", "submit", job, "--config", config, "--run-dir", str(run)]
    command += ["--executor", "local", "--gpus", str(gpus), "--yes", "--wait"]
    env = os.environ | ({} if gpus else {"CUDA_VISIBLE_DEVICES": ""})
    started = time.perf_counter()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    logs = "\n".join(path.read_text(errors="replace") for path in run.rglob("*.log"))
    said = [line for line in logs.splitlines() if "engine " in line or " on cuda" in line or " on cpu" in line]
    output = (done.stdout + done.stderr)[-600:]
    return {"run": run.name, "rc": done.returncode, "seconds": seconds, "log": said[:3], "output": output}


def _eval_config(folder: Path) -> str:
    config = {
        "model": {"name": "tiny", "dtype": "float32"},
        "data": {"name": "drills", "max_samples": 300},
        "task": ASKED | {"metrics": ["exact_match"]},
    }
    return _written(folder / "eval.yaml", config)


def _train_config(folder: Path) -> str:
    section = {
        "global_batch": 8,
        "micro_batch": 4,
        "max_steps": 20,
        "learning_rate": 1e-3,
        "max_length": 128,
        "mixed_precision": "no",
    }
    return _written(folder / "train.yaml", {"model": {"name": "tiny"}, "data": {"name": "drills"}, "train": section})


def _written(path: Path, config: dict[str, Any]) -> str:
    path.write_text(json.dumps(config))
    return str(path)


def main() -> None:
    """Run the parts and print a line of JSON for each result."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--part", action="append", choices=["equal", "rates", "runs"])
    parse.add_argument("--size", choices=SIZES, default="1b")
    parse.add_argument("--rows", type=int, default=512)
    parse.add_argument("--new", type=int, default=128, help="new tokens of each row")
    parse.add_argument("--batches", default="16,128", help="batch sizes of `generate`")
    args = parse.parse_args()
    parts = {
        "equal": equal,
        "rates": lambda: rates(args.size, args.rows, args.new, [int(one) for one in args.batches.split(",")]),
        "runs": runs,
    }
    for name in args.part or parts:
        for line in parts[name]():
            print(json.dumps({"part": name} | line), flush=True)


if __name__ == "__main__":
    main()
