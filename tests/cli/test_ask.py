"""The question before something is queued, on a real terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcjobs.launch.slurm import clean_environment
from hpcjobs.run_folder.paths import RunPaths
from tests.runs import DEADLINE, cancelled_at_end, plan_run


def asked(answer: str, *words: str | Path) -> tuple[int, str]:
    """Exit code and stderr of hpcjobs on a terminal on which somebody types `answer`."""
    ours, terminal = os.openpty()
    command = [sys.executable, "-m", "hpcjobs", *map(str, words)]
    os.write(ours, answer.encode())
    with subprocess.Popen(command, stdin=terminal, stderr=terminal, env=clean_environment()) as process:
        code = process.wait(DEADLINE)
    os.close(terminal)
    said = os.read(ours, 1 << 16).decode()
    os.close(ours)
    return code, said


def test_no_is_an_answer(tmp_path: Path) -> None:
    config = plan_run(tmp_path / "template", 3).config
    code, said = asked("n\n", "submit", "eval", "--config", config, "--run-dir", tmp_path / "run", "--name", "run")
    assert code == 130
    assert said.rstrip().endswith("not queued")
    assert "interrupted" not in said
    assert not (tmp_path / "run").exists()


def test_return_is_yes(tmp_path: Path) -> None:
    config = plan_run(tmp_path / "template", 3).config
    with cancelled_at_end(RunPaths(tmp_path / "run")):
        code, said = asked("\n", "submit", "eval", "--config", config, "--run-dir", tmp_path / "run", "--name", "run")
        assert code == 0, said
        assert (tmp_path / "run/plan.json").exists()


@pytest.mark.parametrize("words", [("--world-sizes", "1,2")])
def test_verify_says_that_nothing_was_run(tmp_path: Path, words: tuple[str, ...]) -> None:
    config = plan_run(tmp_path / "template", 3).config
    code, said = asked("n\n", "verify", config, *words, "--run-dir", tmp_path / "sizes", "--executor", "local")
    assert (code, said.rstrip().endswith("not run")) == (130, True), said
