"""An engine that cannot run the model is refused before anything is queued, by the model's config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.config.layers import dotted_layer
from hpcjobs.config.problems import validate
from hpcjobs.errors import ConfigError
from hpcjobs.plan.by_kind import PLANNERS
from hpcjobs.plan.named_engine import check_engine

GEMMA = {"model_type": "gemma3", "text_config": {"layer_types": ["full_attention", "sliding_attention"]}}


def config(folder: Path, engine: str, model: dict[str, Any], **more: object) -> Any:
    (folder / "config.json").write_text(json.dumps(model))
    return validate(
        dotted_layer({"model.name": str(folder), "model.engine": engine, "task.prompt": "x"} | more, "here")
    )


@pytest.mark.parametrize(
    ("engine", "model"),
    [
        ("loop", GEMMA),
        ("loop", {"model_type": "mamba"}),
        ("transformers", {"model_type": "mamba"}),
        ("transformers", {"model_type": "deepseek_v3"}),
        ("transformers", {"model_type": "llama", "rope_scaling": {"type": "dynamic", "factor": 2.0}}),
    ],
)
def test_it_says_which_engines_can(tmp_path: Path, engine: str, model: dict[str, Any]) -> None:
    kind = model["model_type"]
    with pytest.raises(
        ConfigError, match=rf"model\.engine '{engine}' cannot run '.*' \({kind}\): 'auto' or 'generate' can"
    ):
        check_engine(config(tmp_path, engine, model))


def test_others_pass(tmp_path: Path) -> None:
    check_engine(config(tmp_path, "transformers", GEMMA))
    check_engine(config(tmp_path, "generate", {"model_type": "mamba"}))
    check_engine(config(tmp_path, "loop", {"model_type": "llama"}))
    scored: dict[str, object] = {"task.type": "choice", "task.choices": ["a", "b"], "task.target": "a"}
    check_engine(config(tmp_path, "loop", {"model_type": "mamba"}, **scored))  # which no generating engine runs


def test_planning_refuses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    (tmp_path / "d.jsonl").write_text('{"q": "x"}\n')
    made = config(tmp_path / "m", "loop", {"model_type": "mamba"}, **{"data.name": "d.jsonl"})
    with pytest.raises(ConfigError, match="'loop' cannot run"):
        PLANNERS["generate"](made, [], None)
