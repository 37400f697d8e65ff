"""Files that a config names are found from another folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcjobs.assets import shipped
from hpcjobs.config import Config
from hpcjobs.config.layers import dotted_layer
from hpcjobs.config.problems import validate
from hpcjobs.errors import ConfigError
from hpcjobs.plan.locate import located


def config(**values: object) -> Config:
    keys = {name.replace("__", "."): value for name, value in values.items()}
    return located(validate(dotted_layer(keys, "here")))


def test_paths_become_absolute_and_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    found = config(model__name="m", data__name="rows.jsonl", task__few_shot={"k": 1, "data": "shots.csv"})
    assert (found.model.name, found.data.name) == (str(tmp_path / "m"), str(tmp_path / "rows.jsonl"))
    assert found.task.few_shot.data == str(tmp_path / "shots.csv")
    found = config(model__name="tiny", data__name="unified")
    assert (found.model.name, found.data.name) == ("tiny", "unified")


def test_a_config_file_is_found_here_or_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "after.yaml").touch()
    assert config(train__then_eval="after.yaml").train.then_eval == str(tmp_path / "after.yaml")
    shipped_file = str((shipped("configs") / "eval.yaml").resolve())
    assert config(train__then_eval="configs/eval.yaml").train.then_eval == shipped_file
    with pytest.raises(ConfigError, match=r"train\.accelerate_config: there is no file none\.yaml"):
        config(train__accelerate_config="none.yaml")
