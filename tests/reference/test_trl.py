"""Trainings step by step against TRL's SFTTrainer: loss, learning rate, and gradient norm before clipping.

HPCJOBS_TRL=whole takes all set-ups, those of two ranks with two ranks of TRL's too; the short form takes two, and
TRL on one rank.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.assets import ASSETS
from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.launch.slurm import clean_environment
from hpcjobs.plan.train import make_train_plan
from hpcjobs.training.data.order import BatchOrder, Ordering
from hpcjobs.training.data.tokens import TokenFacts, TokenFile
from hpcjobs.training.setup import make_optimizer
from tests.reference.trl_trainer import train
from tests.trainings import curve_of, run_training

pytestmark = pytest.mark.model
WHOLE = os.environ.get("HPCJOBS_TRL") == "whole"
STEPS, BATCH, ROWS = 20, 12, 60
_DRAW = random.Random(3)
_WORDS = ["the", "sum", "of 3 and 14", "is", "17,", "what is left?", "four;", "then", "2 more make six"]
_TEXTS = [[" ".join(_DRAW.choices(_WORDS, k=_DRAW.randint(1, 5))) for _ in range(4)] for _ in range(ROWS)]
LORA: dict[str, Any] = {"rank": 4, "alpha": 8}


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def plain(texts: list[str]) -> dict[str, Any]:
    return {"prompt": "", "completion": texts[0]}


def pair(texts: list[str]) -> dict[str, Any]:
    return {"prompt": texts[0], "completion": f" {texts[1]}"}


def answer(texts: list[str]) -> dict[str, Any]:
    return {"prompt": [turn("user", texts[0])], "completion": [turn("assistant", texts[1])]}


def chat(texts: list[str]) -> dict[str, Any]:
    return {"messages": [turn(role, text) for role, text in zip(["user", "assistant"] * 2, texts, strict=True)]}


@dataclass(frozen=True)
class SetUp:
    """The rows of a training and its settings, as hpcjobs' and as TRL's."""

    row: Any
    ranks: int = 1
    train: dict[str, Any] = field(default_factory=dict)
    trl: dict[str, Any] = field(default_factory=dict)


_SECTION: dict[str, Any] = {
    "max_steps": STEPS, "global_batch": BATCH, "micro_batch": 2, "learning_rate": 1e-3, "weight_decay": 0.1,
    "max_length": 128, "mixed_precision": "no",
}  # fmt: skip
_TRL: dict[str, Any] = {
    "max_steps": STEPS, "learning_rate": 1e-3, "weight_decay": 0.1, "max_length": 128, "lr_scheduler_type": "linear",
}  # fmt: skip
_WARM: dict[str, Any] = {"scheduler": "cosine", "warmup_steps": 4}
_TRL_WARM: dict[str, Any] = {"lr_scheduler_type": "cosine", "warmup_steps": 4}
_SHORT = ("prompt and completion", "chats with adapters")
SET_UPS = {
    "texts": SetUp(plain, train={"micro_batch": 12}),
    "prompt and completion": SetUp(pair, train=_WARM, trl=_TRL_WARM),
    "prompt and completion on two ranks": SetUp(pair, 2, train=_WARM, trl=_TRL_WARM),
    "prompt and completion, packed": SetUp(pair, train={"packing": True, "global_batch": 24}),
    "chats": SetUp(chat, train={"clip_norm": 0.1}, trl={"assistant_only_loss": True, "max_grad_norm": 0.1}),
    "chats, packed, on two ranks": SetUp(
        chat,
        2,
        train={"packing": True, "global_batch": 24, "max_length": 248},
        trl={"assistant_only_loss": True, "max_length": 248},
    ),
    "chats with adapters": SetUp(answer, train={"lora": LORA, "learning_rate": 1e-2}, trl={"learning_rate": 1e-2}),
    "chats with adapters on two ranks": SetUp(answer, 2, train={"lora": LORA}),
}


def ours(folder: Path, made: SetUp) -> Any:
    """The run of hpcjobs, at its end."""
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(made.row(texts)) + "\n" for texts in _TEXTS))
    values = {
        "model": {"name": "tiny"}, "data": {"name": str(data)}, "train": _SECTION | made.train,
        "run": {"heartbeat": 0.2, "lease_timeout": 20.0},
        "cluster": {"executor": "local", "ntasks_per_node": made.ranks},
    }  # fmt: skip
    draft = make_train_plan(validate(Layer(values)), folder / "run")
    draft.write()
    run_training(draft.paths, made.ranks)
    return draft.paths


def theirs(folder: Path, made: SetUp, paths: Any) -> list[dict[str, Any]]:
    """What TRL says of each step, of the same rows in the order of the run."""
    tokens, facts = TokenFile(paths.tokens), TokenFacts.read(paths.token_facts)
    train_config, packs = _SECTION | made.train, made.train.get("packing")
    assert facts.train.samples == ROWS
    order = BatchOrder(tokens.lengths, Ordering(0, train_config["global_batch"], facts.longest if packs else None))
    steps = [[int(tokens.rows[sample]) for sample in order.samples(step)] for step in range(STEPS)]
    if packs:  # TRL packs the rows in its own way: a step is all of them, so it does not matter how
        assert all(sorted(step) == list(range(ROWS)) for step in steps), f"a step is {len(order.units)} rows"
        size = {"packing": True, "num_train_epochs": STEPS, "per_device_train_batch_size": ROWS}
        steps = steps[:1]
    else:
        micro = train_config["micro_batch"]
        ranks = made.ranks if WHOLE else 1
        size = {"per_device_train_batch_size": micro, "gradient_accumulation_steps": BATCH // micro // ranks}
    spec = {
        "model": str(ASSETS / "tiny"), "rows": [made.row(_TEXTS[row]) for step in steps for row in step],
        "lora": {"seed": 0, "r": 4, "lora_alpha": 8} if "lora" in made.train else None,
    } | _TRL | size | made.trl  # fmt: skip
    return on_two_ranks(folder, spec) if WHOLE and made.ranks == 2 and not packs else train(**spec)


def on_two_ranks(folder: Path, spec: dict[str, Any]) -> list[dict[str, Any]]:
    (folder / "spec.json").write_text(json.dumps(spec))
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
        "tests.reference.trl_trainer", str(folder / "spec.json"), str(folder / "curve.json"),
    ]  # fmt: skip
    env = clean_environment() | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.getcwd()}
    subprocess.run(command, env=env, check=True, capture_output=True, timeout=300)
    found: list[dict[str, Any]] = json.loads((folder / "curve.json").read_text())
    return found


@pytest.mark.parametrize("name", SET_UPS if WHOLE else _SHORT)
def test_each_step_is_that_of_trl(tmp_path: Path, name: str) -> None:
    made = SET_UPS[name]
    paths = ours(tmp_path, made)
    found, right = curve_of(paths), theirs(tmp_path, made, paths)
    assert len(found) == len(right) == STEPS
    worst = max(abs(one.loss / step["loss"] - 1) for one, step in zip(found, right, strict=True))
    print(f"{name}: losses {found[0].loss:.4f} to {found[-1].loss:.4f}, differ by {worst:.1e}")
    assert [one.loss for one in found] == pytest.approx([step["loss"] for step in right], rel=1e-5)
    assert [one.learning_rate for one in found] == pytest.approx([step["learning_rate"] for step in right], rel=1e-9)
    assert [one.grad_norm for one in found] == pytest.approx([step["grad_norm"] for step in right], rel=1e-3)
    assert found[-1].loss < found[0].loss / 1.2, "nothing was learned, and the steps might be equal by that"


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_same_weights_decay(kind: str) -> None:
    import transformers

    config = transformers.AutoConfig.for_model(kind)
    for name in ("num_hidden_layers", "hidden_size", "vocab_size", "num_attention_heads", "intermediate_size"):
        setattr(config, name, 4)
    model = transformers.AutoModelForCausalLM.from_config(config)
    names = {id(weight): name for name, weight in model.named_parameters()}
    optimizer = make_optimizer(model, validate(Layer({"train": {"weight_decay": 0.1}})).train)
    decays = {names[id(one)] for group in optimizer.param_groups if group["weight_decay"] for one in group["params"]}
    right = set(transformers.Trainer.get_decay_parameter_names(None, model))
    assert decays == right & {*names.values()}, "tied weights have one name here, and both there"
