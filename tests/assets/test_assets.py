from __future__ import annotations

import importlib.util
import itertools
import json
import sys
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "hpcjobs" / "assets"
DATA_SETS = {"canned_50_quick": 50, "unified": 600}


def load_make_assets() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_assets", ROOT / "tools" / "make_assets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


make_assets = load_make_assets()


def read_rows(name: str) -> list[dict[str, str]]:
    lines = (ASSETS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def operand_of(row: dict[str, str]) -> str:
    """Read the operand back from the question's text, by no help of the generator."""
    text = row["question"].split(": ", 1)[1]
    return "+".join(sorted(text.split("+"), key=int)) if "+" in text else text


def greedy_answers(rows: list[dict[str, str]], batch_rows: int, system: str = "") -> list[str]:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(ASSETS / "tiny", local_files_only=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(ASSETS / "tiny", local_files_only=True)
    assert model.dtype == torch.float32
    assert tokenizer.padding_side == "left"
    head = [{"role": "system", "content": system}] if system else []
    chats = [[*head, {"role": "user", "content": row["question"]}] for row in rows]
    answers: list[str] = []
    for start in range(0, len(chats), batch_rows):
        batch = tokenizer.apply_chat_template(
            chats[start : start + batch_rows],
            add_generation_prompt=True,
            padding=True,
            return_dict=True,
            return_tensors="pt",
        )
        tokens = model.generate(**batch, max_new_tokens=96, do_sample=False)
        answers += tokenizer.batch_decode(tokens[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return answers


def test_model_folder_fits_in_3_mb() -> None:
    sizes = [path.stat().st_size for path in (ASSETS / "tiny").iterdir()]
    assert 0 < sum(sizes) <= 3_000_000


@pytest.mark.parametrize(("name", "count"), DATA_SETS.items())
def test_rows_are_whole_and_unique(name: str, count: int) -> None:
    rows = read_rows(name)
    assert len(rows) == count
    assert all(set(row) == {"id", "task", "question", "answer"} and row["answer"] for row in rows)
    assert len({row["id"] for row in rows}) == len({row["question"] for row in rows}) == count
    assert {row["task"] for row in rows} == set(make_assets.TASKS)


def test_data_sets_do_not_overlap() -> None:
    quick, unified = read_rows("canned_50_quick"), read_rows("unified")
    assert not {row["id"] for row in quick} & {row["id"] for row in unified}
    assert not {operand_of(row) for row in quick} & {operand_of(row) for row in unified}


@pytest.mark.parametrize("name", DATA_SETS)
def test_operands_are_held_out_from_training(name: str) -> None:
    assert {make_assets.split_of(operand_of(row)) for row in read_rows(name)} == {name}


def test_training_stream_never_gives_a_held_out_operand() -> None:
    rows = [row for name in DATA_SETS for row in read_rows(name)]
    validation_rows = {operand_of(row) for row in rows}
    drawn = [pair[1] for pair in itertools.islice(make_assets.training_stream(), 20_000)]
    assert all(make_assets.split_of(one.key) == "train" for one in drawn)
    assert not validation_rows & {operand_of({"question": one.question}) for one in drawn}


def test_the_script_gives_the_shipped_data_sets(tmp_path: Path) -> None:
    make_assets.write_data_sets(tmp_path)
    for name in DATA_SETS:
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (ASSETS / f"{name}.jsonl").read_bytes()


def test_tokenizer_gives_back_the_exact_text() -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(ASSETS / "tiny", local_files_only=True)
    text = " a  b , don't . \n" + make_assets.CHARACTERS
    tokens = tokenizer(text)["input_ids"]
    assert len(tokens) == len(text)
    assert tokenizer.decode(tokens) == text
    assert tokenizer("é")["input_ids"] == [tokenizer.unk_token_id]


def test_chat_template_writes_what_the_model_was_trained_on() -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(ASSETS / "tiny", local_files_only=True)
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Add: 3+4"},
        {"role": "assistant", "content": "7"},
    ]
    asked = tokenizer.apply_chat_template(chat[:2], tokenize=False, add_generation_prompt=True)
    assert asked == "<|bos|><|system|>Be brief.<|end|><|user|>Add: 3+4<|end|><|assistant|>"
    assert tokenizer.apply_chat_template(chat, tokenize=False) == f"{asked}7<|end|>"
    assert tokenizer.eos_token == "<|end|>"


def test_the_drills_are_those_of_the_script_and_have_no_held_out_operand() -> None:
    rows = pq.read_table(ASSETS / "drills.parquet").to_pylist()
    assert rows == make_assets.drill_rows()
    validation_rows = {operand_of(row) for name in DATA_SETS for row in read_rows(name)}
    questions = [message["content"] for row in rows for message in row["messages"] if message["role"] == "user"]
    assert len(questions) == len(rows) == 48_000
    assert not validation_rows & {operand_of({"question": question}) for question in questions}


@pytest.mark.parametrize("system", ["", "Be brief."])
def test_model_solves_the_quick_set(system: str) -> None:
    rows = read_rows("canned_50_quick")
    answers = greedy_answers(rows, batch_rows=16, system=system)
    right = sum(given == row["answer"] for given, row in zip(answers, rows, strict=True))
    assert right / len(rows) > 0.8


def test_padding_does_not_change_answers() -> None:
    rows = read_rows("canned_50_quick")[:12]
    assert greedy_answers(rows, batch_rows=1) == greedy_answers(rows, batch_rows=12)
