"""Whole runs on a model whose weights are not those of its config: an error, the tensor's name, nothing scored.

Where headers show it `submit` refuses the run (tests/plan/test_weights.py). Here they do not: names are changed on
loading, or the folder changes after the plan.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcjobs.assets import ASSETS
from hpcjobs.launch.slurm import clean_environment
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.paths import RunPaths
from tests.plan.test_weights import FILE, UP, missing, other_shape, other_type, read, renamed, truncated, write

pytestmark = pytest.mark.model


def changed(folder: Path) -> None:
    """Other numbers under the same names: what a `latest/` is a day later."""
    tensors = read(folder / FILE)
    write(folder / FILE, {name: (dtype, shape, content[::-1]) for name, (dtype, shape, content) in tensors.items()})


# Each fault, and what the error names.
FAULTS: list[tuple[Callable[[Path], None], str]] = [
    (renamed, UP), (missing, UP), (other_shape, UP), (other_type, "transformer.h.0.attn.c_attn.weight"),
    (truncated, "model.safetensors is cut off"), (changed, "this is not what was planned"),
]  # fmt: skip
JOBS = {
    "loop": ["eval", "--set", "model.engine=loop"],
    "transformers": ["eval", "--set", "model.engine=transformers"],
    "choice": ["eval", "--set", "task.type=choice", "--set", "task.choices=[a, b]", "--set", "task.target=a",
               "--set", "task.metrics=[acc]"],
    "train": ["train", "--set", "train.max_steps=1", "--set", "train.init=pretrained"],
}  # fmt: skip
# All runs in one process, which imports torch once. The folder changes when the run is planned, before it starts.
CODE = """
import json, os, sys, shutil
import hpcjobs.commands.submit as submit
from typer.testing import CliRunner
from hpcjobs.cli import app
start = submit.start
for model, faulty, words in json.loads(sys.argv[1]):
    def then(draft, *more, model=model, faulty=faulty):
        if faulty:
            shutil.rmtree(model)
            os.rename(faulty, model)
        return start(draft, *more)
    submit.start = then
    done = CliRunner().invoke(app, words)
    print(json.dumps([getattr(done.exception, "exit_code", done.exit_code), str(done.exception or done.output)]))
"""


def test_each_fault_on_each_engine_and_in_training(tmp_path: Path) -> None:
    runs, named = [], []
    for fault, name in FAULTS:
        for job, words in JOBS.items():
            model, faulty = tmp_path / f"{fault.__name__}-{job}", None
            shutil.copytree(ASSETS / "tiny", model)
            if fault in (truncated, changed):
                faulty = str(shutil.copytree(model, f"{model}-later"))
            fault(Path(faulty or model))
            how = ["--model", str(model), "--name", model.name, "--executor", "debug", "--yes", "--max-samples", "4"]
            runs.append((str(model), faulty, ["submit", *words, *how, "--set", "model.weights.rename={'^none$': x}"]))
            named.append((model.name, name))
    env = clean_environment() | {"HPCJOBS_RUNS": str(tmp_path / "runs"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(runs)], capture_output=True, text=True, env=env, check=False
    )
    ends = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(ends) == len(runs), done.stdout + done.stderr
    for (run, name), (code, said) in zip(named, ends, strict=True):
        paths = RunPaths(tmp_path / "runs" / run)
        assert paths.plan.exists(), (run, said)
        assert code in (1, 2), (run, said)
        assert name in said, (run, said)
        assert not paths.results.exists(), run
        assert not paths.model.exists(), run
        assert not paths.metrics.exists() or not read_json(paths.metrics)["metrics"], run
        assert all(path.stat().st_size == 0 for path in paths.journals()), run
