"""Where tasks of lm_eval are found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcjobs.errors import ConfigError
from hpcjobs.tasks.lmeval.tasks import PlannedTask, find, load
from tests.lmeval_tasks import write_tasks


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
