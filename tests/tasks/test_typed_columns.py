"""Chats and numbers that a file has as texts: read as `data.types` says, in few-shot examples and training too."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpcjobs.config import Config
from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.errors import DataError
from hpcjobs.plan.eval import make_plan
from hpcjobs.plan.train import make_train_plan
from hpcjobs.requests import template_values
from hpcjobs.run_folder.inputs import Inputs, user_columns
from hpcjobs.run_folder.json_columns import python_rows
from hpcjobs.tasks.datasets import load_table
from hpcjobs.tasks.few_shot import read_pool
from hpcjobs.tasks.prompts import Prompts

CHAT = [{"role": "system", "content": "Be \"brief\"."}, {"role": "user", "content": "Ünïcödé 🙂\n1+1?"}]
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}]
FORMATS = ("d.csv", "d.tsv", "d.jsonl", "d.json", "d.parquet", "d.arrow", "saved")


def written(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    """The rows as a file of that format; what is no text is written as it is where the format can."""
    path = folder / name
    if name in ("d.csv", "d.tsv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            out = csv.DictWriter(file, list(rows[0]), delimiter="," if name == "d.csv" else "\t")
            out.writeheader()
            out.writerows(rows)
    elif name == "saved":
        import datasets

        datasets.Dataset.from_list(rows).save_to_disk(str(path))
    elif name == "d.jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif name == "d.json":
        path.write_text(json.dumps(rows))
    elif name == "d.parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_file(str(path), table.schema) as out_file:
            out_file.write_table(table)
    return path


def config_of(path: Path, types: dict[str, str] | None = None, **more: Any) -> Config:
    task = {"metrics": ["exact_match"], "target": "{{ gold }}"} | more
    return validate(Layer({
        "data": {"name": str(path), "types": types or {}}, "task": task, "model": {"engine": "dummy"},
        "run": {"root": str(path.parent / "runs")},
    }))  # fmt: skip


ROWS = [
    {"messages": json.dumps(CHAT, ensure_ascii=escaped), "tools": json.dumps(TOOLS), "gold": "2"}
    for escaped in (True, False)
]


@pytest.mark.parametrize("name", FORMATS)
def test_a_chat_as_text_is_refused_until_its_type_is_named(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name, ROWS)
    said = r"first row \(id '0'\): column 'messages' has a chat as JSON text: set data\.types: \{messages: json\}"
    with pytest.raises(DataError, match=said):
        make_plan("eval", config_of(path))
    config = config_of(path, {"messages": "json"})
    rows = python_rows(load_table(config.data))
    for row in rows:
        prompt = Prompts(config.task, list(row)).request(row, 0).prompt
        assert (prompt, template_values(prompt)) == (CHAT, {"tools": TOOLS})  # type: ignore[arg-type]
    assert make_plan("eval", config).plan.notes == []


@pytest.mark.parametrize("name", ["d.csv", "d.parquet"])
def test_training_says_the_same(tmp_path: Path, name: str) -> None:
    chat = json.dumps([*CHAT, {"role": "assistant", "content": "2"}])
    path = written(tmp_path, name, [{"messages": chat}] * 2)
    config = config_of(path).model_copy(update={"task": validate(Layer({})).task})
    config = config.model_copy(update={"model": config.model.model_copy(update={"engine": "auto", "name": "tiny"})})
    with pytest.raises(DataError, match="column 'messages' has a chat as JSON text"):
        make_train_plan(config)
    data = config.data.model_copy(update={"types": {"messages": "json"}})
    plan = make_train_plan(config.model_copy(update={"data": data})).plan
    assert plan.train is not None
    assert all("global_batch" in note for note in plan.train.notes)


@pytest.mark.parametrize("shots", ["d.csv", "d.jsonl", "d.parquet"])
def test_few_shot_data_has_the_types_of_the_data(tmp_path: Path, shots: str) -> None:
    """Numbers of a CSV file are added as numbers in the examples too, and columns that they lack are no error."""
    data = written(tmp_path, "data.csv".replace("data", "d"), [{"a": "1", "b": "2", "gold": "3", "more": "4"}])
    (tmp_path / "shots").mkdir()
    values: dict[str, Any] = {"a": "10", "b": "20", "gold": "30"}
    pool = written(tmp_path / "shots", shots, [values if shots == "d.csv" else values | {"a": 10}])
    types = {"a": "int64", "b": "int64", "more": "float64"}
    config = config_of(data, types, prompt="{{ a }} + {{ b }} = {{ a + b }}", few_shot={"k": 1, "data": str(pool)})
    draft = make_plan("eval", config)
    draft.write()
    inputs = Inputs(draft.paths.data)
    prompts = Prompts(config.task, user_columns(inputs.columns), read_pool(draft.paths, config.task.few_shot))
    assert prompts.request(inputs[0], 0).prompt == "10 + 20 = 30 30\n\n1 + 2 = 3"


def test_few_shot_chats_as_text_are_refused_until_their_type_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, "d.jsonl", [{"messages": CHAT, "gold": "2"}])
    (tmp_path / "shots").mkdir()
    pool = written(tmp_path / "shots", "d.csv", [{"messages": json.dumps(CHAT), "gold": "3"}])
    shots = {"k": 1, "data": str(pool)}
    with pytest.raises(DataError, match="column 'messages' has a chat as JSON text"):
        make_plan("eval", config_of(path, few_shot=shots))
    assert make_plan("eval", config_of(path, {"messages": "json"}, few_shot=shots)).plan.notes == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (str(CHAT), "as Python prints it, which is no JSON: write the file again"),
        (json.dumps({"messages": CHAT}, indent=1), "as JSON text"),
        (json.dumps(CHAT[0]), "as JSON text"),
        ('[{"from": "human", "value": "x"}]', "as JSON text"),
        ('[{"role": "user", "content": "x"', "as JSON text"),
    ],
)
def test_other_ways_to_write_a_chat_as_text(text: str, said: str) -> None:
    task = validate(Layer({})).task
    for column in ("messages", "prompt"):
        with pytest.raises(ValueError, match=f"column '{column}' has a chat {said}"):
            Prompts(task, [column]).prompt({column: text})
        own = task.model_copy(update={"prompt": f"{{{{ {column} }}}}"})
        assert Prompts(own, [column]).prompt({column: text}) == text
    scored = validate(Layer({"task": {"type": "perplexity"}})).task
    assert Prompts(scored, ["text"]).prompt({"text": text}) == text


@pytest.mark.parametrize(
    "text", ["[1, 2]", '{"content": "x", "role": "manager"}', "Say [{role: user}]", "[]", "{}", '{"role": "user"}']
)
def test_other_texts_are_texts(text: str) -> None:
    assert Prompts(validate(Layer({})).task, ["prompt"]).prompt({"prompt": text}) == text


def test_columns_of_other_types_stay_or_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "d.jsonl", [{"n": 12, "m": "x"}, {"n": 13, "m": None}])
    assert python_rows(load_table(config_of(path, {"n": "int64", "m": "string"}).data))[1]["n"] == 13
    assert python_rows(load_table(config_of(path, {"n": "json"}).data))[0]["n"] == 12
    with pytest.raises(DataError, match=r"column 'n' of .* has int64, neither text nor bool"):
        load_table(config_of(path, {"n": "bool"}).data)
    with pytest.raises(DataError, match=r"row 0, column 'm': 'x' is no json, and data\.types says so"):
        load_table(config_of(path, {"m": "json"}).data)
    with pytest.raises(DataError, match=r"data\.types: .* has no column 'k'"):
        load_table(config_of(path, {"k": "json"}).data)
    mixed = written(tmp_path, "d.json", [{"n": CHAT}, {"n": json.dumps(CHAT)}, {"n": None}, {"n": ""}])
    rows = python_rows(load_table(config_of(mixed, {"n": "json"}).data))
    assert [row["n"] for row in rows] == [CHAT, CHAT, None, None]


def test_tools_beside_a_text_are_told(tmp_path: Path) -> None:
    path = written(tmp_path, "d.jsonl", [{"prompt": "x", "tools": TOOLS, "documents": "none", "gold": "y"}] * 2)
    said = "column 'tools' is not used in 2 of 2 rows, the first is row 0: only a chat from the column 'messages' or"
    assert make_plan("eval", config_of(path)).plan.notes == [f"{said} 'prompt' takes it to the chat template"]
    used = config_of(path, prompt="{{ prompt }} {{ tools | tojson }}")
    assert make_plan("eval", used).plan.notes == []
