"""A real small model learns real rows: the validation loss falls, with all weights and with adapters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.plan.train import make_train_plan
from tests.trainings import curve_of, run_training

pytestmark = [pytest.mark.real, pytest.mark.model]


@pytest.mark.parametrize(
    "train",
    [{"learning_rate": 1e-4}, {"learning_rate": 2e-3, "lora": {"rank": 8, "alpha": 16}}],
    ids=["all weights", "adapters"],
)
def test_the_validation_loss_falls(real_dir: Path, tmp_path: Path, train: dict[str, Any]) -> None:
    rows = [json.loads(line) for line in (real_dir / "gsm8k.jsonl").read_text().splitlines()[:16]]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps({"question": r["question"], "answer": r["answer"]}) + "\n" for r in rows))
    section: dict[str, Any] = {
        "max_steps": 4, "global_batch": 2, "max_length": 128, "validation_fraction": 0.125, "eval_every": 1,
        "scheduler": "constant", "checkpoint_every": 1000,
    }  # fmt: skip
    config = validate(
        Layer(
            {
                "model": {"name": str(real_dir / "SmolLM2-135M-Instruct")},
                "data": {"name": str(data)},
                "task": {"messages": [{"role": "user", "content": "{{ question }}"}], "target": "{{ answer }}"},
                "train": section | train,
            }
        )
    )
    draft = make_train_plan(config, tmp_path / "run")
    draft.write()
    run_training(draft.paths, 1)
    held = [record.eval_loss or 0.0 for record in curve_of(draft.paths)]
    assert held[-1] < held[0]
