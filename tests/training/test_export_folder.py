"""The folder of an exported model, whatever the tokenizer writes and however full the disk is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.assets import ASSETS
from hpcjobs.merge.train import merge_train
from hpcjobs.run_folder.heartbeat import read_heartbeat
from hpcjobs.run_folder.paths import RunPaths
from tests.disks import small_disk
from tests.trainings import TrainingRanks, curve_of, logs_of, plan_training, run_training

pytestmark = pytest.mark.model


def test_named_chat_templates_come_along(tmp_path: Path) -> None:
    """transformers writes them to a folder of their own (case 43)."""
    import transformers

    base = tmp_path / "base"
    shutil.copytree(ASSETS / "tiny", base)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    templates = {"default": tokenizer.chat_template, "tool_use": "{{ tools }}" + tokenizer.chat_template}
    tokenizer.chat_template = templates
    tokenizer.save_pretrained(base)
    assert (base / "additional_chat_templates" / "tool_use.jinja").is_file()
    paths = plan_training(tmp_path / "run", model=str(base), init="pretrained", max_steps=1)
    run_training(paths, 1)
    assert merge_train(paths).complete
    assert transformers.AutoTokenizer.from_pretrained(paths.model).chat_template == templates
    folders = [path for path in [paths.model, *paths.model.rglob("*")] if path.is_dir()]
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in paths.model.rglob("*") if path.is_file()} == {0o600}


@pytest.mark.parametrize("adapter", [False, True], ids=["model", "adapter"])
def test_a_full_disk_is_said_and_costs_no_step(tmp_path: Path, adapter: bool) -> None:
    """Checkpoints fit, and what is exported does not (case 48)."""
    lora: dict[str, Any] = {"lora": {"rank": 64}} if adapter else {}
    with small_disk(tmp_path / "disk", "size=60m") as disk:
        paths = plan_training(disk.path / "run", init="pretrained", max_steps=2, checkpoint_every=2, **lora)
        run_training(paths, 1)
        shutil.rmtree(paths.model)
        shutil.rmtree(paths.adapter, ignore_errors=True)
        disk.fill(leave=1_200_000)
        with TrainingRanks(paths, 1, "b") as ranks:
            assert ranks.finish() == [1]
        _check_fatal(paths, "b")
        said = logs_of(paths)
        assert f"{paths.adapter if adapter else paths.model} cannot be written: No space left on device" in said
        assert f"then: hpcjobs resume {paths.root}" in said
        assert "needed: about 2." in said or "needed: about 3." in said
        assert not paths.model.exists()
        assert not [path for path in paths.root.iterdir() if path.name.startswith(".")]
        disk.clear()
        run_training(paths, 1, "c")
        assert {record.attempt for record in curve_of(paths)} == {"a"}
        assert merge_train(paths).complete


def _check_fatal(paths: RunPaths, attempt: str) -> None:
    """Rank 0 says that a restart would not help."""
    vitals = read_heartbeat(paths.heartbeat(attempt, 0))
    assert vitals, logs_of(paths)
    assert vitals.fatal, json.dumps(vitals.first_error)
