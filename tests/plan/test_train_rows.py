"""Rows that would not be learned as they stand are said before anything is queued, as the ranks count them later."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from hpcjobs.assets import ASSETS
from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.errors import DataError
from hpcjobs.plan.train import make_train_plan
from hpcjobs.plan.train_rows import row_notes
from hpcjobs.tasks.datasets import load_table
from hpcjobs.training.data.encode import Encoder
from hpcjobs.training.data.examples import Examples
from tests.real_templates import CHATS as REAL_CHATS
from tests.real_templates import NAMES, REAL, attempt
from tests.trainings import train_config


def chat(*texts: str) -> dict[str, Any]:
    roles = ["user", "assistant"] * len(texts)
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]}


CHATS = [
    chat("a", "b"), chat("only a question"), chat("1", "2" * 60, "3", "4"), chat("x" * 30, "y"), chat("q" * 20, "r"),
]  # fmt: skip
PAIRS = [{"prompt": "1" * n, "completion": f" {'2' * n}"} for n in (3, 30, 9, 40)]


def notes_of(folder: Path, rows: list[dict[str, Any]], most: int) -> tuple[list[str], Any]:
    """The notes of the plan, and its config."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = train_config(folder / "rows.jsonl", max_length=most)
    config = config.model_copy(update={"task": validate(Layer({})).task})
    return make_train_plan(config, folder / "run").plan.train.notes, config


@pytest.mark.model
@pytest.mark.parametrize(("rows", "most"), [(CHATS, 30), (PAIRS, 40)], ids=["chats", "texts"])
def test_the_plan_counts_rows_as_the_ranks_do(
    tmp_path: Path, tiny: tuple[Any, Any], rows: list[dict[str, Any]], most: int
) -> None:
    notes, config = notes_of(tmp_path, rows, most)
    encoder, examples = Encoder(tiny[1], 1000), Examples(config.task, ["index", "id", *rows[0]])
    longer = []
    for number, row in enumerate(rows):
        if row != chat("only a question"):
            tokens = encoder.encode(examples.example({"index": number, "id": str(number), **row}))
            longer += [number] if len(tokens.ids) > most else []
    assert longer, "none is cut, and the test says nothing"
    [note] = [note for note in notes if "truncated" in note]
    assert note.startswith(f"of {len(rows)} rows about {len(longer)} are longer than {most} tokens (train.max_length)")
    assert [part.split(" ")[1] for part in note.partition("truncated: ")[2].split("; ")] == [str(n) for n in longer]


def test_a_row_in_which_nobody_answers_is_named(tmp_path: Path) -> None:
    notes, _ = notes_of(tmp_path, CHATS, 200)
    assert [note for note in notes if "global_batch" not in note] == [
        "of 5 rows 1 have nothing to learn and would be left out: row 1 (id 1): the assistant has no turn in it"
    ]


@pytest.mark.model
@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("gpt2", {"n_positions": 24}), ("gptj", {"n_positions": 24}), ("opt", {"max_position_embeddings": 24}),
        ("llama", {"max_position_embeddings": 24}), ("bloom", {}), ("rwkv", {"context_length": 24}),
        ("gemma3", {"text_config": {"max_position_embeddings": 24}}), ("mpt", {"max_seq_len": 24}),
        ("dbrx", {"max_seq_len": 24}), ("kimi_linear", {"model_max_length": 24}),
    ],
)  # fmt: skip
def test_the_limit_is_that_of_the_ranks_whatever_a_config_calls_it(
    tmp_path: Path, kind: str, values: dict[str, Any]
) -> None:
    """The ranks ask transformers for it; the plan reads the file."""
    import transformers

    from hpcjobs.engines.loader import ModelSource, most_positions

    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((ASSETS / "tiny" / name).read_bytes())
    transformers.AutoConfig.for_model(kind, **values).save_pretrained(tmp_path)
    longest = min(64, most_positions(ModelSource(str(tmp_path))) or 64)
    assert (longest == 24) == (kind not in ("bloom", "mpt"))  # which have distances, and no positions
    config = train_config(tmp_path / "rows.jsonl", model=str(tmp_path), max_length=64)
    config = config.model_copy(update={"task": validate(Layer({})).task})
    table = pa.table({"index": [0], "id": ["a"], "prompt": ["1"], "completion": ["2" * 100]})
    [note] = row_notes(config, table, Examples(config.task, table.column_names))
    assert f"1 are longer than {longest} tokens (train.max_length)" in note


def test_the_model_context_is_a_limit_too_and_many_are_counted(tmp_path: Path) -> None:
    rows = [{"prompt": "1", "completion": "2" * (400 if n % 2 else 3)} for n in range(1200)]
    notes, _ = notes_of(tmp_path, rows, 1024)
    [note] = notes
    assert note.startswith("of the first 1000 rows about 500 are longer than 256 tokens (train.max_length)")
    assert note.endswith("; and 497 more")


def copied(folder: Path, template: str) -> Path:
    """The tiny model with another chat template."""
    shutil.copytree(ASSETS / "tiny", folder)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


@pytest.mark.model
@pytest.mark.parametrize("name", ["qwen3", *NAMES])
def test_the_plan_leaves_out_what_the_ranks_leave_out(tmp_path: Path, name: str) -> None:
    """Such as turns that a template writes in another way when more follow, as those of reasoning models do."""
    from transformers import AutoTokenizer

    model = copied(tmp_path / "model", REAL[name].read_text(encoding="utf-8"))
    encoder, task = Encoder(AutoTokenizer.from_pretrained(model), 10000), validate(Layer({})).task
    answer = {"role": "assistant", "content": "Final."}
    rows = [{"index": n, "id": str(n), "messages": [*one, answer]} for n, one in enumerate(REAL_CHATS.values())]

    def learns(row: dict[str, Any]) -> bool:
        return attempt(lambda: str(encoder.encode(task_examples(task).example(row)))) is not None

    ranks = [number for number, row in enumerate(rows) if learns(row)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = train_config(tmp_path / "rows.jsonl", max_length=10000)
    config = config.model_copy(update={"task": task, "model": config.model.model_copy(update={"name": str(model)})})
    table = load_table(config.data)
    planned = [n for n in range(len(rows)) if not notes_of_row(config, table.slice(n, 1), task)]
    assert planned == ranks
    assert name != "qwen3" or 0 < len(ranks) < len(rows)


def task_examples(task: Any) -> Examples:
    return Examples(task, ["index", "id", "messages"])


def notes_of_row(config: Any, table: Any, task: Any) -> str:
    """Why a row alone cannot be learned from, by the plan."""
    try:
        row_notes(config, table, task_examples(task))
    except DataError as error:
        return str(error)
    return ""


def test_a_data_set_of_which_no_row_is_learned_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of 2 rows can be learned from: row 0 \(id 0\): the assistant has no"):
        notes_of(tmp_path, [chat("only a question")] * 2, 200)


def test_a_validation_split_is_looked_at_too(tmp_path: Path) -> None:
    for name, rows in (("train", [chat("a", "b")]), ("test", [chat("a", "b"), chat("only a question")])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = train_config(tmp_path, max_length=200, validation_split="test", eval_every=1)
    task, data = validate(Layer({})).task, config.data.model_copy(update={"split": "train"})
    plan = make_train_plan(config.model_copy(update={"task": task, "data": data}), tmp_path / "run").plan
    assert [note for note in plan.train.notes if "global_batch" not in note] == [
        "test: of 2 rows 1 have nothing to learn and would be left out: row 1 (id 1): the assistant has no turn in it"
    ]
