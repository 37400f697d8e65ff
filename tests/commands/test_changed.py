"""A model that is not the planned one any more: nothing is queued with it unless the user says so, and that is told."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hpcjobs.assets import ASSETS
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.submission import read_launches
from tests.runs import cancelled_at_end, hpcjobs, plan_run


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    """A planned run of a model in a folder of its own, on the local executor."""
    shutil.copytree(ASSETS / "tiny", tmp_path / "model")
    task = {"prompt": "{{ question }}", "target": "{{ gold }}", "metrics": ["exact_match"]}
    model = {"name": str(tmp_path / "model"), "engine": "generate"}
    return plan_run(tmp_path / "run", 2, model=model, task=task)


def change(paths: RunPaths) -> None:
    file = paths.root.with_name("model") / "generation_config.json"
    file.write_text(file.read_text() + "\n")


@pytest.mark.model
def test_resume_refuses_it_and_names_the_way_on(paths: RunPaths) -> None:
    change(paths)
    done = hpcjobs("resume", str(paths.root), "--yes")
    assert done.returncode == 1
    assert "generation_config.json: planned sha256 " in done.stderr
    assert f"hpcjobs resume {paths.root} --allow-changed" in done.stderr
    assert not read_launches(paths)
    with cancelled_at_end(paths):
        done = hpcjobs("resume", str(paths.root), "--allow-changed", "--yes", "--wait")
        assert done.returncode == 0, done.stderr
    [warning] = read_json(paths.metrics)["warnings"]
    assert warning.startswith("not as planned, and allowed (run.allow_changed): ")
    assert "generation_config.json" in warning


def test_a_model_that_is_gone_is_named(paths: RunPaths) -> None:
    shutil.rmtree(paths.root.with_name("model"))
    done = hpcjobs("resume", str(paths.root), "--yes")
    assert done.returncode == 1
    assert "model/README.md" not in done.stderr
    assert "planned sha256 " in done.stderr
    assert "now not there" in done.stderr
    assert not read_launches(paths)
