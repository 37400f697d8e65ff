"""A task of lm_eval whose prompts are longer than the model reads, such as longbench's: what lm_eval alone says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcjobs.config import Config, GenerationConfig
from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.errors import ConfigError
from hpcjobs.plan.eval import make_plan
from hpcjobs.tasks.lmeval.eval_task import LmEvalTask
from hpcjobs.tasks.lmeval.fold import LazyTask, LmEvalFold
from hpcjobs.tasks.lmeval.tasks import PlannedTask
from tests.lmeval_tasks import alone
from tests.reference.lengths import WHOLE, harness, loaded, run, save_model, text_of

pytestmark = pytest.mark.model
POSITIONS = 256
LENGTHS = [3, 150, 190, 222, 223, 224, 225, 255, 256, 257, 400, 1100]  # 32 new tokens leave room for 224
TASK = """
task: TASK
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/test.jsonl}}
test_split: test
doc_to_text: "{{context}}{{question}}"
doc_to_target: "{{answers}}"
process_results: !function utils.scores
generation_kwargs: {max_gen_toks: NEW, temperature: 1, do_sample: false, until: []}
filter_list:
  - {name: all, filter: [{function: take_first}]}
  - {name: first-half, filter: [{function: regex, regex_pattern: "^(.{1,9})"}, {function: take_first}]}
metric_list:
  - {metric: score, aggregation: mean, higher_is_better: true}
  - {metric: seen, aggregation: mean, higher_is_better: true}
"""
# `seen` tells one answer from another.
UTILS = """
import zlib


def scores(doc, results):
    said = set(results[0])
    return {"score": max(len(said & set(one)) / len(said | set(one) | {"?"}) for one in doc["answers"]),
            "seen": zlib.crc32(results[0].encode()) / 2**32}
"""


def write_task(folder: Path, new: int) -> Path:
    folder.mkdir()
    rows = [
        {"context": text_of(n - 3, n), "question": text_of(2), "answers": [text_of(5), "abc"]}
        for n in LENGTHS
    ]  # fmt: skip
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "utils.py").write_text(UTILS)
    text = TASK.replace("FOLDER", str(folder)).replace("NEW", str(new)).replace("TASK", "long")
    (folder / "long.yaml").write_text(text)
    return folder


def config_of(tasks: Path, model: Path) -> Config:
    values: dict[str, Any] = {
        "model": {"name": str(model)},
        "task": {"type": "lm_eval", "name": "long", "include_path": str(tasks)},
        "cluster": {"executor": "local"},
    }
    return validate(Layer(values))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"), "llama", POSITIONS)


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")  # for lm_eval alone, which bootstraps in a process a core


def asked(tmp_path: Path, model: Path, new: int, engine: str) -> Any:
    """The planned task with its rows, and the answers of an engine."""
    from hpcjobs.engines.pick import EngineSpec, make_engine

    draft = make_plan("eval", config_of(write_task(tmp_path / "tasks", new), model), tmp_path / "run")
    draft.write()
    (note,) = [note for note in draft.plan.notes if "too long" in note]
    assert note.startswith(
        "the prompts of 6 of 12 rows are too long for the model's 256 positions ('6', '7', '8', ...)"
    )
    task = LmEvalTask(draft.paths.code, 0)
    assert draft.table is not None
    rows = [{"index": n, **row} for n, row in enumerate(draft.table.to_pylist())]
    made = make_engine(*loaded(model), GenerationConfig(), EngineSpec(engine=engine, batch_size=4))
    return draft.paths, task, rows, run(made, [task.request(row) for row in rows])


@pytest.mark.parametrize("engine", ["loop", "generate", "transformers"] if WHOLE else ["loop"])
def test_answers_scores_and_values_are_lm_evals(tmp_path: Path, model: Path, engine: str) -> None:
    paths, task, rows, done = asked(tmp_path, model, 32, engine)
    theirs = alone(harness(model), "long", tmp_path / "tasks", bootstrap_iters=0)
    samples = theirs["samples"]["long"]
    assert [one.error for one in done] == [None] * len(LENGTHS)
    assert [one.prompt_tokens for one in done] == [min(length, POSITIONS - 32) for length in LENGTHS]
    first = {sample["doc_id"]: sample["resps"][0][0] for sample in samples}
    assert [one.text for one in done] == [first[n] for n in range(len(LENGTHS))]
    scores = [task.judge(answer, row) for answer, row in zip(done, rows, strict=True)]
    for sample in samples:
        mine = scores[sample["doc_id"]]
        for metric in ("score", "seen"):
            assert mine[f"{metric},{sample['filter']}"].number == sample[metric]
    for name in PlannedTask.read(paths.code).metrics:
        fold = LmEvalFold(name, LazyTask(paths.code))
        fold.add(np.array([one[name.text].number for one in scores]))
        right = theirs["results"]["long"][name.text]
        assert fold.summary()["value"] == right > 0


def test_as_many_new_tokens_as_positions_are_refused_here_and_there(tmp_path: Path, model: Path) -> None:
    tasks = write_task(tmp_path / "tasks", POSITIONS)
    with pytest.raises(ConfigError, match="256 new tokens leave no room for a prompt in the model's 256 positions"):
        make_plan("eval", config_of(tasks, model), tmp_path / "run")
    with pytest.raises(AssertionError, match="must be less than model's maximum sequence length"):
        alone(harness(model), "long", tasks, bootstrap_iters=0)
