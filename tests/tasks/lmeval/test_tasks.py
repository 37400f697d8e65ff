"""Where tasks of lm_eval are found, and what of them goes into a run's code/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.errors import ConfigError
from hpcjobs.tasks.lmeval.dataset_stub import DatasetStub
from hpcjobs.tasks.lmeval.tasks import (
    FOLDER,
    LoadedTask,
    MetricName,
    PlannedTask,
    find,
    load,
    smallest_stub,
    snapshot,
)
from tests.lmeval_tasks import write_tasks

PLANNED = PlannedTask("pick", "0.4.13", ["pick"], [], [MetricName("acc", "none", "acc")])


def test_a_stand_in_answers_as_the_data_set_did(tmp_path: Path) -> None:
    import datasets

    write_tasks(tmp_path / "tasks", rows=5)
    files = {"test": str(tmp_path / "tasks" / "test.jsonl")}
    full, load_dataset = DatasetStub(), datasets.load_dataset
    with full.recording():
        whole = datasets.load_dataset("json", data_files=files)
        one = datasets.load_dataset("json", data_files=files, split="test")
    assert datasets.load_dataset is load_dataset
    assert (full.rows, full.cut(2).rows) == (5, 2)
    for name, content in full.cut(2).files().items():
        (tmp_path / name).write_bytes(content)
    with DatasetStub.read(tmp_path).answering():
        again = datasets.load_dataset("json", None, data_files=files)
        single = datasets.load_dataset(path="json", data_files=files, split="test")
        with pytest.raises(ConfigError, match="another data set"):
            datasets.load_dataset("json", data_files={})
    assert again["test"].to_list() == whole["test"].to_list()[:2] == single.to_list() == one.to_list()[:2]
    assert again["test"].features == whole["test"].features


def test_as_few_rows_are_kept_as_the_tasks_code_can_do_with(tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks")
    full, tried = DatasetStub(), list[int]()
    with full.recording():
        loaded, _ = find("pick", folder)

    def again(short: DatasetStub) -> Any:
        tried.append(short.rows)
        if short.rows < 4:
            raise IndexError("too few")
        return loaded

    assert smallest_stub(full, loaded, again).rows == 4
    assert tried == [1, 2, 4]

    def never(short: DatasetStub) -> LoadedTask:
        raise ZeroDivisionError

    assert smallest_stub(full, loaded, never).rows == 30


def test_yaml_and_python_are_copied_and_the_rest_is_linked(tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks")
    (folder / "more").mkdir()
    (folder / "more" / "prompt.txt").write_text("Say it.")
    (folder / "runs" / "old").mkdir(parents=True)
    (folder / "runs" / "old" / "plan.json").write_text("{}")
    (folder / "runs" / "old" / "utils.py").write_text("")
    (folder / "here" / "code").mkdir(parents=True)
    (folder / "here" / "code" / "new.yaml").write_text("")
    made = snapshot(folder, PLANNED, DatasetStub(), folder / "here")
    assert f"{FOLDER}/include/utils.py" in made.files
    assert made.files[f"{FOLDER}/include/pick.yaml"] == (folder / "pick.yaml").read_bytes()
    assert made.links[f"{FOLDER}/include/more/prompt.txt"] == str(folder / "more" / "prompt.txt")
    assert not [name for name in (*made.files, *made.links) if "old" in name or "new.yaml" in name]
    made.write(tmp_path / "code")
    assert PlannedTask.read(tmp_path / "code") == PLANNED


def test_a_folder_of_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcjobs.tasks.lmeval.tasks.MAX_FILES", 5)
    with pytest.raises(ConfigError, match="name the folder of the task alone"):
        snapshot(write_tasks(tmp_path / "tasks"), PLANNED, DatasetStub(), tmp_path)


def test_a_run_without_a_task_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no task\.json"):
        PlannedTask.read(tmp_path)


def test_a_task_whose_data_is_not_there_says_why(tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks")
    (folder / "test.jsonl").unlink()
    with pytest.raises(ConfigError, match="lm_eval cannot load 'pick': FileNotFoundError"):
        load("pick", [folder], library=False)
    with pytest.raises(ConfigError, match="is not a folder"):
        find("pick", tmp_path / "nowhere")


def test_a_group_of_ones_own_may_name_a_task_of_the_library(tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks")
    (folder / "far.yaml").write_text(json.dumps({"group": "far", "task": ["blank", "wikitext"]}))
    with pytest.raises(ConfigError, match="wikitext"):  # found there, and its data set is not here
        find("far", folder)
