"""What is asked of a row: by the config's templates."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hpcjobs.config import Config
from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.metrics import Score
from hpcjobs.requests import Completion
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.tasks.eval_task import eval_task_of, run_metrics

ROW = {"index": 4, "id": "four", "source_id": 44, "question": "2 + 2?", "answer": "4"}


def config_of(**task: Any) -> Config:
    values = {"prompt": "{{ question }}", "target": "{{ answer }}", "metrics": ("exact_match",)}
    return validate(Layer({"task": values | task, "run": {"seed": 5}}))


def test_a_row_becomes_a_request_and_its_answer_scores(tmp_path: Path) -> None:
    config = config_of(prompt="{{ id }}: {{ question }}")
    eval_task = eval_task_of(config, ROW, RunPaths(tmp_path))
    request = eval_task.request(ROW)
    assert (request.index, request.id, request.prompt) == (4, "four", "44: 2 + 2?")  # the user's own id in templates
    assert request.seed != eval_task_of(config_of(), ROW, RunPaths(tmp_path)).request(ROW | {"id": "five"}).seed
    assert eval_task.judge(Completion(index=4, text="4", finish_reason="stop"), ROW) == {"exact_match": Score(1.0)}
    assert eval_task.judge(Completion(index=4, text="5", finish_reason="stop"), ROW) == {"exact_match": Score(0.0)}
    assert eval_task.failed(ROW) == {"exact_match": Score(0.0)}
    assert [metric.name for metric in run_metrics(config.task, RunPaths(tmp_path))] == ["exact_match"]


def test_a_task_of_the_harness_is_made_of_what_the_run_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("hpcjobs.tasks.lmeval.eval_task")
    module.LmEvalTask = lambda code, seed: ("task", code, seed)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    config = config_of()
    config = config.model_copy(update={"task": config.task.model_copy(update={"type": "lm_eval"})})
    made: Any = eval_task_of(config, [], RunPaths(tmp_path))
    assert made == ("task", RunPaths(tmp_path).code, 5)


def test_what_a_template_raises_is_raised_to_the_one_who_asks(tmp_path: Path) -> None:
    config = config_of(prompt="{{ 1 // index }}", target="{{ answer.nothing }}")
    eval_task = eval_task_of(config, ROW, RunPaths(tmp_path))
    with pytest.raises(ZeroDivisionError):
        eval_task.request(ROW | {"index": 0})
    assert eval_task.failed(ROW) == {"exact_match": Score(0.0)}  # its target cannot be had, and need not be
