"""Data and models for programs that nobody here wrote: small ones in the forms that those load from the hub."""

from __future__ import annotations

import csv
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from hpcjobs.assets import ASSETS

TRAIN, VALIDATION = 64, 32
# `evaluate.load` takes a file for a metric of the hub: "accuracy" and "f1" of GLUE's MRPC.
_METRIC = """\
import datasets
import evaluate

FEATURES = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})


class Mrpc(evaluate.Metric):
    def _info(self):
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=FEATURES)

    def _compute(self, predictions, references):
        pairs = list(zip(predictions, references))
        both = sum(p == r == 1 for p, r in pairs)
        ones = sum(predictions) + sum(references)
        return {"accuracy": sum(p == r for p, r in pairs) / len(pairs), "f1": 2 * both / ones if ones else 0.0}
"""


def make_data(folder: Path) -> None:
    """Write all of it into `folder`: tiny (a causal model), mrpc, mrpc_metric, text, chats, preferences, chars."""
    rows = [json.loads(line) for line in (ASSETS / "unified.jsonl").read_text().splitlines()]
    shutil.copytree(ASSETS / "tiny", folder / "tiny")
    _pairs(folder / "mrpc", rows)
    (folder / "mrpc_metric").mkdir()
    (folder / "mrpc_metric/mrpc_metric.py").write_text(_METRIC)
    text = "".join(f"{row['question']} {row['answer']}\n" for row in rows)
    for name in ("text", "chats", "preferences", "chars"):
        (folder / name).mkdir()
    (folder / "text/train.txt").write_text(text)
    (folder / "text/validation.txt").write_text(text[:4000])
    _write(folder / "chats", [_chat(row) for row in rows[:TRAIN]])
    _write(folder / "preferences", [_preference(row) for row in rows[:TRAIN]])
    _chars(folder / "chars", text)


def _says(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _chat(row: dict[str, str]) -> dict[str, Any]:
    return {"messages": [_says("user", row["question"]), _says("assistant", row["answer"])]}


def _preference(row: dict[str, str]) -> dict[str, Any]:
    prompt, right, wrong = row["question"], row["answer"], row["answer"][::-1] + "x"
    return {
        "prompt": [_says("user", prompt)], "chosen": [_says("assistant", right)],
        "rejected": [_says("assistant", wrong)],
    }  # fmt: skip


def _write(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _pairs(folder: Path, rows: list[dict[str, str]]) -> None:
    """GLUE's MRPC as CSV: two sentences, and whether they mean the same."""
    folder.mkdir()
    for split, begin, count in (("train", 0, TRAIN), ("validation", 100, VALIDATION), ("test", 200, VALIDATION)):
        with (folder / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["sentence1", "sentence2", "label", "idx"])
            for number, row in enumerate(rows[begin : begin + count]):
                writer.writerow([row["question"], row["answer"], number % 2, number])


def _chars(folder: Path, text: str) -> None:
    """nanoGPT's train.bin, val.bin and meta.pkl of a text, as its prepare.py writes them."""
    chars = sorted(set(text))
    numbers = {char: number for number, char in enumerate(chars)}
    ids = np.array([numbers[char] for char in text], dtype=np.uint16)
    cut = int(len(ids) * 0.9)
    ids[:cut].tofile(folder / "train.bin")
    ids[cut:].tofile(folder / "val.bin")
    meta = {"vocab_size": len(chars), "itos": dict(enumerate(chars)), "stoi": numbers}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))
