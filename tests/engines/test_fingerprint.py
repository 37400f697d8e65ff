"""A model folder that changed after the plan is found out, and what is damaged is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcjobs.assets import ASSETS
from hpcjobs.config import ModelConfig
from hpcjobs.engines.fingerprint import check_planned, weights_fingerprint
from hpcjobs.errors import ConfigError
from hpcjobs.run_folder.plan import PlanModel

FILE = "model.safetensors"


def other_config(folder: Path) -> None:
    (folder / "config.json").write_text((folder / "config.json").read_text().replace("10000.0", "20000.0"))


def other_numbers(folder: Path) -> None:
    whole = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(whole[:9000] + bytes(8) + whole[9008:])


def cut_off(folder: Path) -> None:
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:-8])


def other_template(folder: Path) -> None:
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{{ messages }}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_config, "is not what was planned: its files have changed since"),
        (other_template, "is not what was planned: its files have changed since"),
        (other_numbers, "is not what was planned: its files have changed since"),
        (cut_off, rf"{FILE} is cut off: .*model\.\S+ is the first of 1 tensors"),
    ],
)
def test_a_folder_that_changed(tmp_path: Path, change: Callable[[Path], None], message: str) -> None:
    shutil.copytree(ASSETS / "tiny", tmp_path / "m")
    model = ModelConfig(name=str(tmp_path / "m"))
    planned = PlanModel(name="m", weights_sha256=weights_fingerprint(tmp_path / "m"))
    check_planned(model, planned)
    change(tmp_path / "m")
    with pytest.raises(ConfigError, match=message):
        check_planned(model, planned)
    check_planned(model, PlanModel(name="m"))  # of a hub model, which has its commit
    check_planned(ModelConfig(name="org/model"), planned)
