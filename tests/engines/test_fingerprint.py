"""A model folder that changed after the plan is found out, and what is damaged is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hpcjobs.assets import ASSETS
from hpcjobs.config import ModelConfig
from hpcjobs.engines.fingerprint import check_planned, weight_digests, weights_fingerprint
from hpcjobs.engines.weight_files import read_header
from hpcjobs.errors import ConfigError, HpcJobsError
from hpcjobs.run_folder.plan import PlanModel
from hpcjobs.run_folder.planned import ChangedError

FILE = "model.safetensors"


def other_config(folder: Path) -> None:
    (folder / "config.json").write_text((folder / "config.json").read_text().replace("10000.0", "20000.0"))


def last_tensor(folder: Path) -> None:
    """One number of the last tensor alone: names, sizes and the first MiB stay."""
    last = max(read_header(folder / FILE).values(), key=lambda tensor: tensor.begin)
    whole = bytearray((folder / FILE).read_bytes())
    assert last.begin > 1 << 20
    whole[last.begin] ^= 1
    (folder / FILE).write_bytes(whole)


def cut_off(folder: Path) -> None:
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:-8])


def one_more(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages }}")


def other_template(folder: Path) -> None:
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{{ messages }}")


def pickled(folder: Path) -> None:
    content = bytearray((folder / "pytorch_model.bin").read_bytes())
    content[3_000_000:3_400_000] = bytes(400_000)
    (folder / "pytorch_model.bin").write_bytes(content)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "m"
    shutil.copytree(ASSETS / "tiny", made)
    (made / "pytorch_model.bin").write_bytes(bytes(range(1, 251)) * 20_000)
    return made


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_config, r"config\.json: planned sha256 [0-9a-f]{16}, now sha256 [0-9a-f]{16}\n"),
        (last_tensor, r"model\.safetensors: planned sha256 [0-9a-f]{16}, now sha256 [0-9a-f]{16}\n"),
        (pickled, r"pytorch_model\.bin: planned sha256 [0-9a-f]{16}, now sha256 [0-9a-f]{16}\n"),
        (one_more, r"chat_template\.jinja: planned not there, now sha256 [0-9a-f]{16}\n"),
        (other_template, r"tool_use\.jinja: planned not there, now sha256 [0-9a-f]{16}\n"),
        (lambda folder: (folder / "tokenizer.json").unlink(), r"tokenizer\.json: planned sha256 .*, now not there\n"),
        (cut_off, rf"{FILE} is cut off: .*model\.\S+ is the first of 1 tensors"),
    ],
    ids=["config", "last tensor", "pickled", "a template", "a named template", "a file is gone", "cut off"],
)
def test_a_folder_that_changed(folder: Path, change: Callable[[Path], None], message: str, full: bool) -> None:
    model = ModelConfig(name=str(folder), verify_weights="full" if full else "head")
    planned = PlanModel(name="m", weights_sha256=weights_fingerprint(folder), files=weight_digests(folder, full))
    check_planned(model, planned, "run")
    change(folder)
    with pytest.raises(HpcJobsError, match=message):
        check_planned(model, planned, "run")
    check_planned(ModelConfig(name="org/model"), replace(planned, files=None), "run")  # a hub model has its commit


def test_a_changed_folder_is_no_failure_where_that_is_allowed(folder: Path) -> None:
    planned = PlanModel(name="m", weights_sha256="00", files=weight_digests(folder))
    other_config(folder)
    check_planned(ModelConfig(name=str(folder)), planned, "run", allowed=True)


def test_a_readme_is_none_of_the_model(folder: Path) -> None:
    planned = PlanModel(name="m", weights_sha256="00", files=weight_digests(folder))
    (folder / "README.md").write_text("other words")
    (folder / ".lock").write_text("")
    check_planned(ModelConfig(name=str(folder)), planned, "run")


def test_runs_of_earlier_versions_have_one_hash(folder: Path) -> None:
    model, planned = ModelConfig(name=str(folder)), PlanModel(name="m", weights_sha256=weights_fingerprint(folder))
    check_planned(model, planned, "run")
    other_config(folder)
    with pytest.raises(ChangedError, match="m: planned sha256"):
        check_planned(model, planned, "run")
    cut_off(folder)
    with pytest.raises(ConfigError, match="is cut off"):
        check_planned(model, planned, "run")
