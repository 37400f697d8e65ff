"""TRL's SFTTrainer on given rows in a given order: `python -m tests.reference.trl_trainer SPEC.json CURVE.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

# The tiny model's template, with the marks by which TRL finds the assistant's turns.
MARKED = (
    "{{- '<|bos|>' -}}{%- for message in messages -%}{{- '<|' + message['role'] + '|>' -}}"
    "{%- if message['role'] == 'assistant' -%}{%- generation -%}{{- message['content'] + '<|end|>' -}}"
    "{%- endgeneration -%}{%- else -%}{{- message['content'] + '<|end|>' -}}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def train(model: str, rows: list[dict[str, Any]], lora: dict[str, Any] | None, **settings: Any) -> list[dict[str, Any]]:
    """What TRL logs of each step of a training on `rows`, as they stand: loss, learning_rate, grad_norm.

    `settings` are those of its SFTConfig; `lora` has the seed of hpcjobs' adapters and what peft's LoraConfig is given.
    """
    import datasets
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    net = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.padding_side = "right"
    if settings.get("assistant_only_loss"):
        tokenizer.chat_template = MARKED
    with TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder, logging_steps=1, train_sampling_strategy="sequential", use_cpu=True, bf16=False,
            report_to=[], gradient_checkpointing=False, save_strategy="no", disable_tqdm=True, seed=0,
            optim="adamw_torch_fused", dataloader_pin_memory=False, shuffle_dataset=False, **settings,
        )  # fmt: skip
        trainer = SFTTrainer(
            model=adapted(net, **lora) if lora else net, args=config, processing_class=tokenizer,
            train_dataset=datasets.Dataset.from_list(rows),
        )  # fmt: skip
        trainer.train()
    return [one for one in trainer.state.log_history if "loss" in one]


def adapted(model: Any, seed: int, **lora: Any) -> Any:
    """The model with the adapters that hpcjobs begins with."""
    import peft

    from hpcjobs.training.checkpoints.state import seed_all

    seed_all(seed, 0, 0)
    return peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", **lora))


if __name__ == "__main__":
    import os

    found = train(**json.loads(Path(sys.argv[1]).read_text()))
    if os.environ.get("RANK", "0") == "0":
        Path(sys.argv[2]).write_text(json.dumps(found))
