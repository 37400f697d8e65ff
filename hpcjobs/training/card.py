"""Model cards: what the model was trained on, and how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import hpcjobs
from hpcjobs.config import Config
from hpcjobs.config.yaml import dump_yaml
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.training.data.tokens import TokenFacts
from hpcjobs.training.steps import read_curve

if TYPE_CHECKING:
    from hpcjobs.run_folder.plan import Plan


def model_card(paths: RunPaths, config: Config, plan: Plan) -> str:
    """README.md of model/, in the hub's format: YAML metadata, then where the weights come from."""
    return _card("A causal language model", paths, config, plan, {"library_name": "transformers"})


def adapter_card(paths: RunPaths, config: Config, plan: Plan) -> str:
    """README.md of adapter/, in the same format."""
    head = {"library_name": "peft", "base_model": plan.model.name}
    return _card("Low-rank adapters of a causal language model", paths, config, plan, head)


def _card(what: str, paths: RunPaths, config: Config, plan: Plan, head: Mapping[str, str]) -> str:
    table = "\n".join(f"| {name} | {_cell(value)} |" for name, value in _rows(paths, config, plan).items() if value)
    yaml = dump_yaml({**head, "pipeline_tag": "text-generation"})
    heading = f"# {plan.run}\n\n{what}, fine-tuned by `hpcjobs submit train`."
    return f"---\n{yaml}---\n\n{heading}\n\n| | |\n|---|---|\n{table}\n"


def _rows(paths: RunPaths, config: Config, plan: Plan) -> dict[str, str]:
    """The facts of the training by name; empty if unknown."""
    facts = TokenFacts.read(paths.token_facts)
    model = read_curve(paths).exported(config.train, facts.steps)
    train, base = config.train, plan.model.name
    how = "from random weights of the same shape" if train.init == "random" else "from its weights"
    return {
        "base model": f"{base}, {how}",
        "base weights": plan.model.commit or plan.model.weights_sha256 or "",
        "data": f"{plan.data.name}, {plan.rows} rows, sha256 {plan.data.sha256}",
        "samples": f"{facts.train.samples}, {facts.train.tokens} tokens, of which {facts.train.learned} are learned",
        "truncated samples": f"{facts.train.cut}, to {facts.longest} tokens" if facts.train.cut else "",
        "rows left out": str(facts.train.left_out or ""),
        "steps": f"{facts.steps} of {train.global_batch} {'packed rows' if train.packing else 'samples'}",
        "optimizer": f"AdamW, learning rate {train.learning_rate:g}, {train.scheduler}, seed {config.run.seed}",
        "adapters": f"LoRA of rank {train.lora.rank}, alpha {train.lora.alpha}" if train.lora.rank else "",
        "weights": f"of step {model.step}, of the lowest validation loss" if model and train.export == "best" else "",
        "last loss": f"{model.loss:.4f}" if model else "",
        "validation loss": f"{model.eval_loss:.4f}" if model and model.eval_loss is not None else "",
        "run": plan.run,
        "code": f"hpcjobs {hpcjobs.__version__}, commit {plan.code.commit or 'unknown'}",
        "config": f"sha256 {plan.config_sha256}",
    }


def _cell(value: str) -> str:
    return " ".join(value.split()).replace("|", "\\|")
