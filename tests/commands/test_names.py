"""ls: each name that it lists is one that a config takes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from hpcjobs.cli.app import main
from hpcjobs.commands.names import names
from hpcjobs.config.layers import dotted_layer
from hpcjobs.config.problems import validate
from hpcjobs.config.resolve import profile_file, read_config
from hpcjobs.metrics.registry import find_metric
from hpcjobs.plan.eval import make_plan
from tests.runs import config_of
from tests.test_docs import KEYS


def listed(kind: str) -> list[str]:
    """The names, without those that stand for a kind of name."""
    return [one.name for one in names(kind) if not any(word in one.name for word in ("FILE", "FOLDER", "/", ":"))]


def test_every_metric_is_found() -> None:
    assert [find_metric(name.replace("@k", "@1")).name.partition("(")[0] for name in listed("metrics")] == [
        name.replace("@k", "@1") for name in listed("metrics")
    ]


def test_every_engine_is_taken_and_every_key_is_one_of_the_config() -> None:
    for name in listed("engines"):
        assert validate(dotted_layer({"model.engine": name}, "here")).model.engine == name
    assert listed("keys") == [key for key in KEYS if "[]" not in key]


def test_data_and_profiles_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in listed("data"):
        task = {"prompt": "x", "target": "x", "metrics": ["f1"]}
        config = config_of(tmp_path, {"task": task, "data": {"name": name, "max_samples": 2}})
        assert make_plan("eval", config, tmp_path / name).plan.rows == 2
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs" / "clusters").mkdir(parents=True)
    for name in ("mine", "example"):
        (tmp_path / "configs" / "clusters" / f"{name}.yaml").write_text("cluster: {nodes: 2}\n")
    assert {one.name: one.what for one in names("profiles")} == {
        name: f"configs/clusters/{name}.yaml" for name in ("mine", "example")
    }
    assert [read_config(profile_file(name)).cluster.nodes for name in listed("profiles")] == [2, 2]


def test_the_hub_cache_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    snapshot = tmp_path / "models--someone--small" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (tmp_path / "models--someone--small" / "refs").mkdir()
    (tmp_path / "models--someone--small" / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.utils._cache_manager.HF_HUB_CACHE", str(tmp_path))
    assert [one.name for one in names("models")][:2] == ["tiny", "someone/small"]


def test_without_lm_eval_there_are_the_types(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    assert main(["ls", "tasks", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["generate", "choice", "perplexity", "lm_eval"]
    assert main(["ls", "metric"]) == 2
    assert "did you mean 'metrics'" in capsys.readouterr().err
