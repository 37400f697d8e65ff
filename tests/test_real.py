"""A real model on real questions: the same completions as ten lines of plain transformers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from hpcjobs.launch.slurm import clean_environment

pytestmark = [pytest.mark.real, pytest.mark.model]
# On two cores 100 rows take seven minutes (HPCJOBS_REAL_ROWS=100); each CI run does these.
ROWS = int(os.environ.get("HPCJOBS_REAL_ROWS", "12"))
TOKENS = 24
QUESTION = "{{ context }}\n\nAnswer with a few words from the text above. {{ question }}"


def _config(folder: Path, real_dir: Path) -> Path:
    config = {
        "model": {"name": str(real_dir / "SmolLM2-135M-Instruct")},
        "data": {"name": str(real_dir / "squad.jsonl"), "max_samples": ROWS},
        "task": {
            "messages": [{"role": "user", "content": QUESTION}],
            "target": "{{ answers }}",
            "generation": {"max_new_tokens": TOKENS},
            "metrics": ["f1", "exact_match"],
        },
    }
    path = folder / "squad.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return path


def _plain(real_dir: Path) -> list[str]:
    """The loop that everybody writes first: one row at a time, fp32, greedy."""
    import torch
    import transformers

    torch.set_num_threads(1)
    name = real_dir / "SmolLM2-135M-Instruct"
    tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32).eval()
    answers = []
    for line in (real_dir / "squad.jsonl").read_text(encoding="utf-8").split("\n")[:ROWS]:
        row = json.loads(line)
        text = f"{row['context']}\n\nAnswer with a few words from the text above. {row['question']}"
        chat = [{"role": "user", "content": text}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.inference_mode():
            made = model.generate(**ids, max_new_tokens=TOKENS, do_sample=False)
        answers.append(tokenizer.decode(made[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))
    return answers


def test_squad_on_two_ranks_equals_plain_generate(real_dir: Path, tmp_path: Path) -> None:
    submit = [sys.executable, "-m", "hpcjobs", "submit", "eval", "--config", str(_config(tmp_path, real_dir))]
    shape = [
        "--executor",
        "local",
        "--ntasks-per-node",
        "2",
        "--gpus",
        "0",
        "--run-dir",
        str(tmp_path / "run"),
        "--wait",
    ]
    env = clean_environment(os.environ) | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run([*submit, *shape], env=env, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = pq.read_table(tmp_path / "run" / "results.parquet").to_pylist()
    assert [row["completion"] for row in rows] == _plain(real_dir)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())["metrics"]
    assert metrics["f1"]["n"] == ROWS
    assert metrics["f1"]["value"] > 0.05
