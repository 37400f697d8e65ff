"""A task's data set comes back whole on the ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.errors import ConfigError
from hpcjobs.tasks.lmeval.task_data import TaskData
from hpcjobs.tasks.lmeval.tasks import find
from tests.lmeval_tasks import write_tasks


def written(data: TaskData, folder: Path) -> TaskData:
    folder.mkdir()
    for name, content in data.files().items():
        (folder / name).write_bytes(content)
    return TaskData.read(folder)


def test_what_was_loaded_is_loaded_again(tmp_path: Path) -> None:
    import datasets

    write_tasks(tmp_path / "tasks", rows=5)
    files = {"test": str(tmp_path / "tasks" / "test.jsonl")}
    data, load_dataset = TaskData(), datasets.load_dataset
    with data.recording():
        whole = datasets.load_dataset("json", data_files=files)
        one = datasets.load_dataset("json", data_files=files, split="test")
    assert datasets.load_dataset is load_dataset
    with written(data, tmp_path / "copy").answering():
        again = datasets.load_dataset("json", None, data_files=files)
        single = datasets.load_dataset(path="json", data_files=files, split="test")
        with pytest.raises(ConfigError, match="another data set"):
            datasets.load_dataset("json", data_files={})
    assert again["test"].to_list() == whole["test"].to_list() == single.to_list() == one.to_list()
    assert again["test"].features == whole["test"].features


NULLS: list[list[Any]] = [
    [{"a": None}, {"a": None}],
    [{"a": [None, None]}, {"a": []}],
    [{"a": {"x": None, "y": 1}}] * 3,
    [{"a": [{"x": None, "y": 1}, {"x": None, "y": 2}]}, {"a": [{"x": None, "y": 1}]}],
    [{"a": [[{"x": None}]]}, {"a": [[], [{"x": None}] * 3]}],
    [{"a": {"x": [None, None]}}, {"a": {"x": []}}],
]


@pytest.mark.parametrize("rows", NULLS, ids=json.dumps)
def test_fields_that_are_always_null_come_back(tmp_path: Path, rows: list[Any]) -> None:
    import datasets

    whole = datasets.Dataset.from_list(rows)
    for number, one in enumerate((whole, whole.select([1, 0]), whole.filter(lambda row: True), whole.select([]))):
        again: Any = written(TaskData({"key": one}), tmp_path / str(number)).answers["key"]
        assert again.to_list() == one.to_list()
        assert again.features == one.features


MADE = """

def made(**options):
    import datasets, random
    rows = [{"word": "a", "right": 1, "tail": "not a is"}] * random.randint(2, 99)
    return {"test": datasets.Dataset.from_list(rows), "train": datasets.Dataset.from_list(rows)}
"""


def test_a_function_that_makes_the_data_is_not_called_again(tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks", rows=3)
    text = (folder / "blank.yaml").read_text().replace("task: blank", "task: made")
    (folder / "made.yaml").write_text(text + "custom_dataset: !function utils.made\n")
    with (folder / "utils.py").open("a") as code:
        code.write(MADE)
    data = TaskData()
    with data.recording():
        loaded, _ = find("made", folder)
    with written(data, tmp_path / "copy").answering():
        again, _ = find("made", folder)
    assert again.tasks["made"].eval_docs.to_list() == loaded.tasks["made"].eval_docs.to_list()
