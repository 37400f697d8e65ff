"""Secrets of a real run: its jobs have them, and no file of it does."""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from hpcjobs.config.layers import set_layer
from hpcjobs.config.resolve import resolve
from hpcjobs.errors import ConfigError
from hpcjobs.launch.slurm import clean_environment
from hpcjobs.plan.script import make_script_plan
from hpcjobs.requests import SampleError
from hpcjobs.run_folder.logs import rank_log

TOKEN, KEY = "tok-0123456789", "key-9876543210"
# Checks what it was given, by digest: it prints no secret itself.
PROGRAM = """
import hashlib, os, sys
given = sys.argv[2], sys.argv[4], os.environ["HUB_TOKEN"]
print("given", *(hashlib.sha256(text.encode()).hexdigest()[:8] for text in given))
"""


def _submit(folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "prog.py").write_text(PROGRAM)
    words = [sys.executable, "-m", "hpcjobs", "submit", "script", "--run-dir", "run", "--executor", "local"]
    words += ["--ntasks-per-node", "1", "--gpus", "0", "--yes", "--wait", "--", "prog.py", "--hub", TOKEN]
    env = clean_environment() | {"HUB_TOKEN": TOKEN}
    return subprocess.run([*words, "--api-key", KEY], cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_a_program_gets_its_secrets_and_no_file_has_them(tmp_path: Path) -> None:
    done = _submit(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert [path for path in files if TOKEN.encode() in path.read_bytes() or KEY.encode() in path.read_bytes()] == []
    logs = "".join(path.read_text(errors="replace") for path in files if path.suffix in (".out", ".log"))
    digests = [hashlib.sha256(text.encode()).hexdigest()[:8] for text in (TOKEN, KEY, TOKEN)]
    assert f"given {' '.join(digests)}" in logs
    assert "${secret:HUB_TOKEN} --api-key ${secret:HPCJOBS_SECRET_1}" in logs
    assert TOKEN not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("cluster.setup", "[export HUB_KEY=abc12345]", r"cluster\.setup\.0 spells out .* \(export HUB_KEY=\*\*\*\)"),
        ("cluster.sbatch.export", "ALL,HF_TOKEN=abc12345", r"cluster\.sbatch\.export spells out a secret"),
        ("cluster.env.PROXY", "http://me:word@proxy", r"cluster\.env\.PROXY spells out"),
        ("task.prompt", f"say {TOKEN}", r"task\.prompt has the value of HUB_TOKEN"),
    ],
)
def test_a_config_that_holds_one_is_refused(monkeypatch: pytest.MonkeyPatch, key: str, value: str, why: str) -> None:
    monkeypatch.setenv("HUB_TOKEN", TOKEN)
    with pytest.raises(ConfigError, match=why) as error:
        resolve("eval", None, None, [set_layer([f"{key}={value}"])])
    assert not any(secret in str(error.value) for secret in ("abc12345", "me:word", TOKEN))


def test_a_shell_may_read_one_and_a_prompt_may_speak_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SORT_KEY", "answer")
    resolve("eval", None, None, [set_layer(["task.prompt='the answer {{ answer }}'"])])
    resolve("eval", None, None, [set_layer(["cluster.setup=[export HUB_KEY=$(cat key), export A_TOKEN=$B]"])])
    resolve("eval", None, None, [set_layer(["task.prompt='Is PASSWORD=hunter22 safe?'"])])


def test_logs_and_errors_of_samples_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_TOKEN", TOKEN)
    with rank_log(tmp_path / "log", 0):
        logging.getLogger("hpcjobs").error("401 for %s", TOKEN)
    assert (tmp_path / "log").read_text().endswith("401 for ***\n")
    assert SampleError.of(ValueError(f"no {TOKEN}")).message == "no ***"


def test_a_secret_that_is_not_there_any_more_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hpcjobs.errors import HpcJobsError
    from hpcjobs.worker.script import revealed

    (tmp_path / "prog.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HPCJOBS_SECRET_1", "")  # so that it is gone again after this test
    config, _ = resolve("script", None, None, [set_layer(["cluster.ntasks_per_node=1"])])
    plan = make_script_plan(config, ["prog.py", "--password=hunter22"], tmp_path / "run").plan
    assert plan.argv == ["prog.py", "--password=${secret:HPCJOBS_SECRET_1}"]
    assert revealed(plan.argv, plan.run) == ["prog.py", "--password=hunter22"]
    monkeypatch.delenv("HPCJOBS_SECRET_1")
    with pytest.raises(HpcJobsError, match=r"export HPCJOBS_SECRET_1=\.\.\. in the shell, then hpcjobs resume run"):
        revealed(plan.argv, plan.run)
