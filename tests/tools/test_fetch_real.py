"""tools/fetch_real.py on the real packages: what it makes, that it makes it once, and how it fails."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import TypedDict

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "fetch_real.py"
NO_INDEX = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_CONFIG_FILE": os.devnull}
ASK = """
import sys, torch, transformers
torch.set_num_threads(1)  # two threads on a busy machine wait for each other and are 20 times slower
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])
assert model.dtype == torch.float32, model.dtype
assert tokenizer.padding_side == "left", tokenizer.padding_side
ask = ["What is the capital of France?", "Name the largest planet of the solar system, please."]
chats = [[{"role": "user", "content": question}] for question in ask]
batch = tokenizer.apply_chat_template(
    chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
)
made = model.generate(**batch, max_new_tokens=12, do_sample=False)
print(tokenizer.decode(made[0, batch["input_ids"].shape[1] :], skip_special_tokens=True))
"""


NAMES = ("squad.jsonl", "gsm8k.jsonl", "hellaswag.jsonl", "arc_easy.jsonl", "mmlu.jsonl", "mmlu_dev.jsonl")


class SquadRow(TypedDict):
    id: str
    title: str
    context: str
    question: str
    answers: list[str]


class Gsm8kRow(TypedDict):
    id: str
    question: str
    answer: str


def lines_of(path: Path) -> list[str]:
    """The lines of a file; splitlines would cut at U+2028 too."""
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of change of everything below a folder, and of the folder."""
    paths = [folder, *folder.rglob("*")]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The script as a process of its own."""
    command = [sys.executable, SCRIPT, *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)


@pytest.mark.real
def test_squad_rows_have_their_golds_in_the_context(real_dir: Path) -> None:
    rows: list[SquadRow] = [json.loads(line) for line in lines_of(real_dir / "squad.jsonl")]
    assert len(rows) == 1000
    assert len({row["id"] for row in rows}) == 1000
    assert rows[0]["id"] == "5727dd2e4b864d1900163eba"
    assert rows[0]["answers"] == ["23 years", "23"]
    for row in rows:
        assert set(row) == {"id", "title", "context", "question", "answers"}
        assert all(isinstance(row[key], str) and row[key].strip() for key in ("id", "title", "question"))
        assert row["answers"]
        assert all(gold and gold in row["context"] for gold in row["answers"])
        assert len(set(row["answers"])) == len(row["answers"])
        assert not row["question"].endswith("Answer:")


@pytest.mark.real
def test_gsm8k_rows_end_in_their_number(real_dir: Path) -> None:
    rows: list[Gsm8kRow] = [json.loads(line) for line in lines_of(real_dir / "gsm8k.jsonl")]
    assert len(rows) == 1319
    assert len({row["id"] for row in rows}) == 1319
    assert rows[0]["id"] == "gsm8k-test-0000"
    assert rows[0]["answer"].endswith("\n#### 18")
    for row in rows:
        assert set(row) == {"id", "question", "answer"}
        assert row["question"].strip()
        assert "Answer:" not in row["question"]  # no few-shot prompt
        assert re.search(r"\n#### -?\d[\d,]*(\.\d+)?$", row["answer"])


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "rows", "options"),
    [("hellaswag", 10042, {4}), ("arc_easy", 570, {3, 4, 5}), ("mmlu", 14042, {4}), ("mmlu_dev", 285, {4})],
)
def test_multiple_choice_rows_have_one_right_option(real_dir: Path, name: str, rows: int, options: set[int]) -> None:
    found = [json.loads(line) for line in lines_of(real_dir / f"{name}.jsonl")]
    assert len(found) == rows
    assert {len(row["choices"]) for row in found} <= options
    assert all(0 <= row["gold"] < len(row["choices"]) for row in found)
    assert {row["gold"] for row in found} >= {0, 1, 2, 3}
    assert all(isinstance(choice, str) for row in found for choice in row["choices"])
    assert not any("[" in row["query"] or " [title]" in row["query"] for row in found if "query" in row)


@pytest.mark.real
def test_model_folder_is_whole_and_readable_by_all(fetch_real: ModuleType, real_dir: Path) -> None:
    folder = real_dir / fetch_real.MODEL
    assert fetch_real.model_fault(folder) is None
    assert (folder / "model.safetensors").stat().st_size > 500_000_000
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=True)


@pytest.mark.real
def test_model_answers_through_its_chat_template_offline(fetch_real: ModuleType, real_dir: Path) -> None:
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", ASK, str(real_dir / fetch_real.MODEL)]
    answer = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert "Paris" in answer


@pytest.mark.real
def test_a_second_run_touches_nothing_and_needs_no_pip(real_dir: Path) -> None:
    before = snapshot(real_dir)
    again = run(real_dir, **NO_INDEX)
    assert again.returncode == 0, again.stderr
    assert "pip" not in again.stdout
    assert snapshot(real_dir) == before


@pytest.mark.real
def test_a_run_after_a_killed_one_makes_only_what_is_lacking(real_dir: Path, tmp_path: Path) -> None:
    whole = (real_dir / "gsm8k.jsonl").read_bytes()
    (tmp_path / ".fetch_real.lock").touch()
    (tmp_path / ".partial-killed").mkdir()
    (tmp_path / ".partial-killed" / "squad.jsonl").write_bytes(b"half")
    (tmp_path / "gsm8k.jsonl").write_bytes(whole)
    (tmp_path / "squad.jsonl").write_bytes(b"damaged")
    kept = (tmp_path / "gsm8k.jsonl").stat().st_ino
    made = run(tmp_path, "--data-only")
    assert made.returncode == 0, made.stderr
    assert {path.name for path in tmp_path.iterdir()} == {".fetch_real.lock", *NAMES}
    assert (tmp_path / "squad.jsonl").read_bytes() == (real_dir / "squad.jsonl").read_bytes()
    assert (tmp_path / "gsm8k.jsonl").stat().st_ino == kept


@pytest.mark.parametrize("part", ["--data-only", "--model-only"])
def test_a_failing_pip_is_one_message_and_leaves_no_part(tmp_path: Path, part: str) -> None:
    failed = run(tmp_path / "real", part, **NO_INDEX)
    assert failed.returncode == 1
    assert "No matching distribution found" in failed.stderr
    assert "pip download" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert [path.name for path in (tmp_path / "real").iterdir()] == [".fetch_real.lock"]


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "squad.jsonl").write_text("mine")
    refused = run(tmp_path, "--data-only")
    assert refused.returncode == 1
    assert "was not made by fetch_real.py" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["squad.jsonl"]
    assert (tmp_path / "squad.jsonl").read_text() == "mine"


def test_model_fault_names_the_file(fetch_real: ModuleType, tmp_path: Path) -> None:
    for name in fetch_real.MODEL_FILES:
        (tmp_path / name).write_text(name)
    assert "SHA256SUMS is missing" in fetch_real.model_fault(tmp_path)
    fetch_real.write_sums(tmp_path)
    assert fetch_real.model_fault(tmp_path) is None
    (tmp_path / "config.json").write_text("{}")
    assert "config.json is damaged" in fetch_real.model_fault(tmp_path)
    (tmp_path / "config.json").unlink()
    assert "config.json is missing" in fetch_real.model_fault(tmp_path)
    (tmp_path / "SHA256SUMS").write_text("cut")
    assert "SHA256SUMS is damaged" in fetch_real.model_fault(tmp_path)
