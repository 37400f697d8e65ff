"""The command line as a user meets it: what is refused and how, dry runs, exit codes, JSON."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity
from hpcjobs.run_folder.submission import read_launches
from tests.fake_slurm import Said, Shell
from tests.runs import wait_for

DUMMY = ["--set", "model.engine=dummy"]
ROWS = '{"id": "a", "question": "q", "answer": "x"}\n'
YAML = "model: {engine: dummy}\ntask: {prompt: x, target: y, metrics: [exact_match]}\n"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    shell = Shell(tmp_path, monkeypatch, capsys)
    shell.write("rows.jsonl", ROWS)
    shell.write("twice.jsonl", ROWS + ROWS.replace('"a"', '"b"') + ROWS)
    shell.write("noid.jsonl", ROWS + ROWS.replace('"a"', "null"))
    shell.write("emptyid.jsonl", ROWS + ROWS.replace('"a"', '""'))
    shell.write("unknown.yaml", "model:\n  engine: dummy\ncluster:\n  partiton: gpu\n")
    shell.write("newline.yaml", YAML + 'cluster:\n  sbatch:\n    comment: "a\\nb"\n')
    shell.write("two.jsonl", ROWS + ROWS.replace('"a"', '"b"'))
    shell.write("two.yaml", YAML + "cluster:\n  nodes: two\n")
    shell.write("true.yaml", YAML + "cluster:\n  nodes: true\n")
    shell.write("text.yaml", YAML + 'cluster:\n  nodes: "2"\n')
    shell.write("yes.yaml", YAML + "run:\n  deterministic: yes\n")
    shell.write("syntax.yaml", "model:\n  engine: [dummy\ntask: x\n")
    shell.write("double.yaml", "model:\n  engine: dummy\n  engine: auto\n")
    shell.write("list.yaml", "- a\n")
    shell.write("name.yaml", YAML + "run:\n  name: ../x\n")
    head = "model:\n  engine: dummy\ndata:\n  name: rows.jsonl\n"
    shell.write("column.yaml", head + "task:\n  prompt: '{{ qestion }}'\n  metrics: [exact_match]\n  target: x\n")
    shell.write("metric.yaml", head + "task:\n  prompt: x\n  metrics: [exact_mach]\n  target: x\n")
    shell.write("braces.yaml", "task:\n  prompt: {{ question }} then {{ answer }}\n")
    shell.write("points.yaml", YAML + "sweep:\n  lr: [1]\n")
    shell.write("broken_metric.py", "import no_such_package_for_sure\n")
    (shell.home / "folder").mkdir()
    return shell


def refused(shell: Shell, said: Said, words: list[str]) -> None:
    """Exit 2, one message with these words, no traceback, nothing queued, nothing left."""
    assert said.code == 2, said
    message = said.message
    for word in words:
        assert word in message
    assert "Traceback" not in said.err
    assert said.err.count("error: ") == 1
    assert said.out == ""
    assert shell.slurm.calls("sbatch") == []
    assert shell.left() == []


BAD: list[tuple[list[str], list[str]]] = [
    (["--config", "unknown.yaml"], ["unknown.yaml:4", "'cluster.partiton'", "did you mean 'partition'"]),
    (["--set", "cluster.nodse=2"], ["--set cluster.nodse", "unknown key", "did you mean 'nodes'", "partition"]),
    (["--set", "clutser.nodes=2"], ["--set clutser.nodes", "did you mean 'cluster'"]),
    (["--set", "nodes=2"], ["section.key=value"]),
    (["--set", "task.prompt={{ question }}"], ["a text needs quotes: --set 'task.prompt=\"{{ question }}\"'"]),
    (["--set", "task.prompt={{", "question", "}}"], ["a template needs quotes", "'task.target=\"{{ answer }}\"'"]),
    (["--config", "braces.yaml"], ["braces.yaml:2: not YAML", 'quotes around it: "{{ column }}"']),
    (["--set", "task.prompt=Q: x"], ["--set task.prompt: must be a text: one with braces or a colon in it"]),
    (["--config", "metric.yaml", "--set", "task.target={x}"], ["--set task.target: must be a text: one with braces"]),
    (["--config", "metric.yaml", "--set", "task.target.x=1"], ["--set task.target.x: task.target: must be a text"]),
    (["--set", "cluster.sbatch.comment={a: b}"], ["--set cluster.sbatch.comment: must be a text or a valid integer"]),
    (["--set", "train.betas=[0.1]"], ["train.betas.1: is missing"]),
    (["--set", "model.batch_size=x"], ["model.batch_size: Input should be a valid integer or 'auto' (got 'x')"]),
    (["--metric", "exact_mach"], ["--metric: task.metrics: no metric 'exact_mach'", "did you mean 'exact_match'"]),
    (["--set", "run.retries=2"], ["--set run.retries", "for the points of a sweep", "run.auto_resume"]),
    (["--nodes", "2", "--gpus", "7"], ["--gpus 7", "--nodes 2", "--gpus 6 or --gpus 8"]),
    (["--gpus", "4", "--gpus-per-node", "2"], ["contradict"]),
    (["--gpus", "4", "--ntasks-per-node", "3"], ["--ntasks-per-node 3", "4 ranks a node"]),
    (["--data", "none.jsonl"], ["none.jsonl", "does not exist"]),
    (["--data", "twice.jsonl"], ["'a' stands twice", "'id'", "rows 0 and 2"]),
    (["--data", "noid.jsonl"], ["row 1 has no id", "'id'"]),
    (["--data", "emptyid.jsonl"], ["row 1 has no id", "'id'"]),
    (["--set", "task.prompt='{{ qestion }}'"], ["task.prompt", "'qestion'", "did you mean 'question'"]),
    (["--set", "task.target='{{ anser }}'"], ["task.target", "'anser'", "did you mean 'answer'"]),
    (["--set", "task.prompt='{{ question '"], ["task.prompt", "not a jinja2 template"]),
    (["--set", "task.prompt='{{ question.x.y }}'"], ["first row", "canned"]),
    (["--set", "task.metrics=[exact_mach]"], ["'exact_mach'", "did you mean 'exact_match'", "number_match"]),
    (["--set", "task.metrics=[no_such_module_here:Metric]"], ["no_such_module_here", "ModuleNotFoundError"]),
    (["--set", "task.metrics=[broken_metric:Metric]"], ["broken_metric", "no_such_package_for_sure"]),
    (["--set", "task.metrics=[]"], ["task.metrics is empty", "submit generate"]),
    (["--comment", "a\nb"], ["comment", "control character", "newline"]),
    (["--sbatch", "comment=a\nb"], ["--sbatch comment", "control character"]),
    (["--set", 'cluster.sbatch.comment="a\\nb"'], ["--set cluster.sbatch.comment", "control character"]),
    (["--config", "newline.yaml"], ["newline.yaml:5", "cluster.sbatch.comment", "control character"]),
    (["--partition", "a\rb"], ["--partition", "control character"]),
    (["--name", ".."], ["--name", "'..'", "not a valid name"]),
    (["--name", "a/b"], ["--name", "'a/b'", "not a valid name"]),
    (["--name", "/tmp/x"], ["--name", "'/tmp/x'", "not a valid name"]),
    (["--name", "a\nb"], ["--name", "not a valid name"]),
    (["--name", ""], ["--name", "not a valid name"]),
    (["--config", "name.yaml"], ["name.yaml:4", "'../x'", "not a valid name"]),
    (["--run-dir", "folder"], ["folder", "exists"]),
    (["--run-dir", "new\nline/a"], ["control character"]),
    (["--config", "two.yaml"], ["two.yaml:4", "cluster.nodes", "integer", "'two'"]),
    (["--config", "true.yaml"], ["true.yaml:4", "cluster.nodes", "integer", "True"]),
    (["--config", "text.yaml"], ["text.yaml:4", "cluster.nodes", "integer", "'2'"]),
    (["--config", "yes.yaml"], ["yes.yaml:4", "run.deterministic", "boolean", "'yes'"]),
    (["--config", "syntax.yaml"], ["syntax.yaml:3", "not YAML"]),
    (["--config", "double.yaml"], ["double.yaml:3", "'model.engine' stands twice", "double.yaml:2"]),
    (["--config", "list.yaml"], ["list.yaml:1", "mapping"]),
    (["--config", "none.yaml"], ["none.yaml does not exist"]),
    (["--config", "folder"], ["folder", "cannot be read"]),
    (["--profile", "lenardo"], ["no profile 'lenardo'", "there are:"]),
    (["--profile", "../folder"], ["not a valid name"]),
    (["--time", "soon"], ["--time", "'soon'", "D-H:M:S"]),
    (["--time", "0"], ["--time", "no time at all"]),
    (["--set", "model.trust_remote_code=true"], ["--set model.trust_remote_code", "model.revision"]),
    (["--set", "cluster.env.HF_TOKEN=hf_x"], ["--set cluster.env.HF_TOKEN", "secret", "export it"]),
    (["--sbatch", "nodes=3"], ["--sbatch nodes", "set cluster.nodes instead"]),
    (["--sbatch", "=3"], ["key=value"]),
    (["--set", "run.lease_timeout=10"], ["--set run.lease_timeout", "3 times run.heartbeat (5 s)"]),
    (["--model", "./none", "--set", "model.engine=auto"], ["model folder ./none does not exist"]),
    (["--model", "folder", "--set", "model.engine=auto"], ["folder", "no config.json"]),
    (["--set", "model.engine=vllm"], ["--set model.engine", "'generate' or 'dummy'", "'vllm'"]),
    (["--executor", "slrum"], ["--executor", "'slurm'", "'slrum'"]),
    (["--executor", "debug", "--ntasks-per-node", "2"], ["debug runs one rank", "--executor local"]),
    (["extra", "words"], ["takes no words", "extra words"]),
    (["mine.yaml"], ["takes no words", "did you mean --config mine.yaml?"]),
    (["--data", "row.jsonl"], ["--data: data file", "(did you mean 'rows.jsonl'?)"]),
    (["--data", "folder/rows"], ["--data: data file folder/rows does not exist"]),
    (["--data", "a/b/c"], ["--data: data file a/b/c does not exist"]),
    (["--config", "column.yaml"], ["column.yaml:6: task.prompt: the template names column 'qestion'"]),
    (["--config", "metric.yaml"], ["metric.yaml:7: task.metrics: no metric 'exact_mach'"]),
    (["--model", "tinny", "--set", "model.engine=auto"], ["--model: model.name 'tinny'", "(did you mean 'tiny'?)"]),
    (["--model", "folder/m", "--set", "model.engine=auto"], ["--model: model folder folder/m does not exist"]),
    (["--set", "task.metrics=exact_match"], ["--set task.metrics: must be a list, such as [one, two]"]),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words).replace("\n", "\\n") for words, _ in BAD])
def test_bad_input_is_told_once_and_leaves_nothing(shell: Shell, words: list[str], message: list[str]) -> None:
    refused(shell, shell.run("submit", "eval", *DUMMY, *words), message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evla"], ["no job 'evla'", "did you mean 'eval'", "script"]),
        (["script"], ["nothing to run", "-- prog.py args"]),
        (["script", "--"], ["nothing to run"]),
        (["script", "--", "none.py"], ["none.py is neither a file here nor a command on PATH"]),
        (["script", "--", "ecko", "x"], ["ecko is neither", "Python file, -m module, or any command"]),
        (["script", "--nodes", "2", "--gpus", "3", "--", "-m", "json.tool"], ["--gpus 2 or --gpus 4"]),
        (["script", "--metric", "f1", "--", "echo"], ["--metric is for submit eval", "script run has no scores"]),
        (["generate", "--metric", "f1"], ["--metric is for submit eval", "a generate run has no scores"]),
    ],
)
def test_jobs_that_cannot_be(shell: Shell, words: list[str], message: list[str]) -> None:
    refused(shell, shell.run("submit", *words), message)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["submit"], "Missing argument"),
        (["submit", "eval", "--nodez", "3"], "--nodes"),
        (["submit", "eval", "--nodes", "two"], "--nodes"),
        (["submit", "eval", "--nodes", "0"], "--nodes"),
        (["submit", "eval", "--max-samples", "-1"], "'--max-samples'"),
        (["submti", "eval"], "submti"),
        (["status", "a", "b"], "b"),
        ([], "Usage"),
        (["submit", "script", "hello.py", "--fail"], "next: the program and its own options stand behind --"),
        (["resume", "x", "--set", "run.seed=1"], "next: a resume keeps the config of its run"),
    ],
)
def test_wrong_flags_are_wrong_usage(shell: Shell, words: list[str], message: str) -> None:
    said = shell.run(*words)
    assert said.code == 2, said
    assert message in said.err + said.out
    assert "Traceback" not in said.err
    assert "internal error" not in said.err
    assert shell.left() == []

def test_an_option_that_names_one_thing_is_not_given_two(shell: Shell) -> None:
    said = shell.run("submit", "eval", "--data", "a.jsonl", "--nodes", "1", "--data=b.jsonl")
    assert said.code == 2
    assert "--data is given 2 times, a.jsonl and b.jsonl: for several files write --set 'data.name=[A, B]'" in said.err
    assert "--model is given" in shell.run("submit", "eval", "--model", "x", "--model", "y").err
    assert "is given" not in shell.run("submit", "eval", "--data", "a.jsonl", "--data", "a.jsonl").err
    assert "is given" not in shell.run("submit", "script", "--dry-run", "--", "x.py", "--data", "a", "--data", "b").err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "unknown.yaml"], ["unknown.yaml:4", "'partition'"]),
        (["--comment", "a\nb"], ["control character"]),
        (["--data", "twice.jsonl"], ["rows 0 and 2"]),
        (["--nodes", "2", "--gpus", "7"], ["--gpus 6 or --gpus 8"]),
    ],
)
def test_bad_input_to_a_real_process(shell: Shell, words: list[str], message: list[str]) -> None:
    refused(shell, shell.process("submit", "eval", *DUMMY, *words), message)


def test_slurm_where_there_is_none(shell: Shell) -> None:
    shell.without_slurm()
    refused(shell, shell.run("submit", "eval", *DUMMY, "--executor", "slurm"), ["no sbatch", "--executor local"])


def test_an_existing_run_says_how_to_go_on(shell: Shell) -> None:
    assert shell.run("submit", "eval", *DUMMY, "--name", "a").code == 0
    for words in (["--name", "a"], ["--run-dir", str(shell.runs / "a")]):
        said = shell.run("submit", "eval", *DUMMY, *words)
        assert said.code == 2
        assert f"hpcjobs resume {shell.runs / 'a'}" in said.message
    assert len(shell.slurm.calls("sbatch")) == 2


def test_what_sbatch_refuses_is_told_in_its_words(shell: Shell) -> None:
    shell.slurm.refuse("sbatch: error: Batch job submission failed: Invalid account\n")
    said = shell.process("submit", "eval", *DUMMY)
    assert said.code == 1
    assert "Batch job submission failed: Invalid account" in said.err
    assert "Traceback" not in said.err
    assert shell.left() == []


def test_a_traceback_only_with_debug(shell: Shell) -> None:
    words = ("submit", "eval", *DUMMY, "--gpus", "7", "--nodes", "2")
    assert "Traceback" not in shell.run(*words).err
    for asked in (["--debug", *words], [*words, "--debug"]):
        said = shell.run(*asked)
        assert said.code == 2
        assert "Traceback" in said.err
        assert "UsageError" in said.err


def test_debug_behind_the_dashes_is_the_programs(shell: Shell) -> None:
    shell.write("p.py", "")
    said = shell.run("submit", "script", "--name", "a", "--", "p.py", "--debug")
    assert said.code == 0
    assert json.loads((shell.runs / "a/plan.json").read_text())["argv"] == ["p.py", "--debug"]


def test_an_unknown_run(shell: Shell) -> None:
    for verb in ("status", "logs", "cancel", "resume", "merge", "score", "report"):
        said = shell.run(verb, "nope")
        assert said.code == 2, verb
        assert "no run 'nope'" in said.message
        assert f"a name in {shell.runs}, the runs root (HPCJOBS_RUNS)" in said.message
    assert "hpcjobs submit" in shell.run("status").message
    assert shell.run("runs").out == ""


def test_a_dry_run_shows_all_and_leaves_nothing(shell: Shell) -> None:
    words = ["--name", "a", "--nodes", "2", "--gpus", "8", "--set", "task.generation.temperature=1e-4"]
    said = shell.run("submit", "eval", *DUMMY, *words, "--dry-run")
    assert said.code == 0
    for line in (
        "2 nodes x 4 GPUs = 8 ranks", 'model.engine = "dummy"    # --set model.engine', "cluster.gpus = 8    # --gpus",
        "task.generation.temperature = 0.0001    # --set task.generation.temperature",
        "#SBATCH --gpus-per-node=4", "#SBATCH --dependency=afterany:WORK_JOB_ID", "50 rows",
    ):  # fmt: skip
        assert line in said.out
    assert any(
        line.startswith('data.name = "canned_50_quick"    # ') and "eval.yaml:" in line
        for line in said.out.splitlines()
    )
    assert said.err == ""
    assert all(shell.slurm.calls(name) == [] for name in ("sbatch", "squeue", "sacct", "scancel"))
    assert not shell.runs.exists()


def test_what_a_dry_run_shows_is_what_is_queued(shell: Shell) -> None:
    shown = shell.run("submit", "eval", *DUMMY, "--name", "a", "--gpus", "2", "--comment", "x y", "--dry-run").out
    assert shell.run("submit", "eval", *DUMMY, "--name", "a", "--gpus", "2", "--comment", "x y").code == 0
    assert shell.slurm.script(100).rstrip() in shown
    assert shell.slurm.script(101).rstrip().replace("afterany:100", "afterany:WORK_JOB_ID") in shown


@pytest.mark.parametrize("warn", [[], ["--sbatch", "signal=USR1@60"]])
def test_the_same_of_a_program(shell: Shell, warn: list[str]) -> None:
    words = ["submit", "script", "--name", "p", *warn]
    shown = shell.run(*words, "--dry-run", "--", "echo", "hi").out
    assert shell.run(*words, "--", "echo", "hi").code == 0
    assert shell.slurm.script(100).rstrip() in shown
    assert len(shell.slurm.calls("sbatch")) == 1 + bool(warn) == shown.count("# script: ")


def test_a_dry_run_of_a_resume_says_what_it_would_queue_and_changes_nothing(shell: Shell) -> None:
    assert shell.run("submit", "eval", *DUMMY, "--name", "a", "--data", "two.jsonl").code == 0
    assert "still going" in shell.run("resume", "a", "--dry-run").message
    shell.slurm.answer("squeue", "100|CANCELLED|None|n1\n101|CANCELLED|None|\n")
    before = {path: path.stat().st_mtime_ns for path in shell.runs.rglob("*")}
    calls = len(shell.slurm.calls("sbatch"))
    said = shell.run("resume", "a", "--gpus", "2", "--dry-run")
    assert said.code == 0, said
    assert said.out.startswith("resume  at most 2 of 2 samples on 1 node x 2 GPUs = 2 ranks\nby      slurm\n")
    assert json.loads(shell.run("resume", "a", "--dry-run", "--json").out)["scripts"].keys() == {"work", "merge"}
    assert {path: path.stat().st_mtime_ns for path in shell.runs.rglob("*")} == before
    assert len(shell.slurm.calls("sbatch")) == calls
    assert shell.run("resume", "a", "--gpus", "2").code == 0
    shown = said.out.replace("merge-0", "merge-1").replace("work-0", "work-1")
    assert shell.slurm.script(102).rstrip().replace("work-0", "work-1") in shown
    assert "no sample" not in shell.run("resume", "a", "--errors", "--dry-run").out


def test_a_dry_run_of_a_resume_of_what_is_complete(
    shell: Shell, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPCJOBS_RUNS", str(finished))
    said = shell.run("resume", "done", "--dry-run")
    assert (said.code, said.out.splitlines()[0]) == (0, "resume  done is complete, and nothing is left to run")


def test_a_dry_run_as_json(shell: Shell) -> None:
    value = json.loads(shell.run("submit", "eval", *DUMMY, "--name", "a", "--gpus", "2", "--dry-run", "--json").out)
    assert value["plan"]["shape"]["gpus_per_node"] == 2
    assert value["config"]["model"]["engine"] == "dummy"
    assert value["from"]["cluster.gpus"] == "--gpus"
    assert value["executor"] == "slurm"
    assert "#SBATCH --gpus-per-node=2" in value["scripts"]["work"]
    assert not shell.runs.exists()


def test_a_dry_run_of_a_real_model_does_not_load_it(shell: Shell) -> None:
    said = shell.run("submit", "eval", "--dry-run")
    assert said.code == 0
    assert "(engine auto: loop)" in said.out


def test_version_and_help(shell: Shell) -> None:
    import hpcjobs

    assert shell.run("--version").out.strip() == hpcjobs.__version__
    said = shell.run("--help")
    assert said.code == 0
    for verb in ("submit", "status", "logs", "cancel", "resume", "merge", "score", "report", "runs", "130"):
        assert verb in said.out


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs root with one run that the local executor has finished, by `submit --wait --json`."""
    root = tmp_path_factory.mktemp("finished")
    command = [
        sys.executable,
        "-m",
        "hpcjobs",
        "submit",
        "eval",
        *DUMMY,
        "--name",
        "done",
        "--max-samples",
        "6",
    ]
    command += ["--executor", "local", "--ntasks-per-node", "2", "--wait", "--json"]
    env = os.environ | {"HPCJOBS_RUNS": str(root), "XDG_CONFIG_HOME": str(root / "none")}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100, check=False, cwd=root)
    assert done.returncode == 0, done.stderr
    started, ended = map(json.loads, done.stdout.splitlines())
    assert (started["run"], started["executor"]) == ("done", "local")
    assert ended["state"] == "complete"
    return root


def values(said: Said) -> list[dict[str, Any]]:
    """The JSON objects on stdout, one a line."""
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert all(isinstance(line, dict) for line in lines)
    return lines


def test_every_verb_speaks_json(shell: Shell, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPCJOBS_RUNS", str(finished))
    [status] = values(shell.run("status", "done", "--json"))
    assert (status["state"], status["done"], status["rows"]) == ("complete", 6, 6)
    assert sorted(rank["rank"] for rank in status["ranks"]) == [0, 1]
    [listed] = values(shell.run("runs", "--json"))
    assert (listed["run"], listed["state"]) == ("done", "complete")
    logged = values(shell.run("logs", "done", "--json"))
    assert {entry["rank"] for entry in logged} >= {0, 1}
    for verb in ("merge", "score"):
        said = shell.run(verb, "done", "--json")
        assert said.code == 0, said
        [merged] = values(said)
        assert merged["metrics"]["counts"]["accepted"] == 6
    assert values(shell.run("cancel", "done", "--json")) == [{"cancelled": []}]
    said = shell.run("resume", "done", "--json")
    assert said.code == 0
    assert values(said)[-1]["state"] == "complete"


def test_report_speaks_json(shell: Shell, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hpcjobs.report.page")
    monkeypatch.setenv("HPCJOBS_RUNS", str(finished))
    [report] = values(shell.run("report", "done", "--json"))
    assert Path(report["report"]).is_file()


def test_submit_and_resume_speak_json_on_slurm(shell: Shell) -> None:
    [value] = values(shell.run("submit", "eval", *DUMMY, "--name", "a", "--json"))
    assert value == {
        "run": "a", "folder": str(shell.runs / "a"), "jobs": {"work": "100", "merge": "101"}, "executor": "slurm",
        "notes": [],
    }  # fmt: skip
    [value] = values(shell.run("submit", "eval", *DUMMY, "--name", "b", "--plan-only", "--json"))
    assert value["planned"] is True
    shell.slurm.answer("squeue", "100|CANCELLED|None|n1\n101|CANCELLED|None|\n")
    [value] = values(shell.run("resume", "a", "--json"))
    assert value["jobs"]["work"] == "102"


def test_results_for_people(shell: Shell, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPCJOBS_RUNS", str(finished))
    text = shell.run("status", "last").out
    assert "complete, 6/6 samples (100%)" in text
    said = shell.run("score", "done", "--metric", "f1")
    assert said.code == 0
    assert "f1 " in said.out
    assert "samples 6 of 6" in said.out


def test_a_reader_that_leaves_is_no_error(finished: Path) -> None:
    env = os.environ | {"HPCJOBS_RUNS": str(finished)}
    command = f"{sys.executable} -m hpcjobs logs done | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""


def heed_ctrl_c() -> None:
    """A test run in the background of a shell ignores SIGINT, and a program inherits that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def waiting(shell: Shell, name: str) -> Iterator[subprocess.Popen[str]]:
    """`submit --wait` of a run that takes for ever, in a process group of its own as in a terminal."""
    command = [
        sys.executable,
        "-m",
        "hpcjobs",
        "submit",
        "eval",
        "--executor",
        "local",
        "--name",
        name,
        "--wait",
        *DUMMY,
    ]
    command += ["--set", "model.dummy_delay=600"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heed_ctrl_c
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_ctrl_c_ends_the_waiting_and_not_the_run(shell: Shell) -> None:
    paths = RunPaths(shell.runs / "long")
    with waiting(shell, "long") as process:
        deadline = time.monotonic() + 60
        while not (paths.heartbeats.is_dir() and any(paths.heartbeats.iterdir())):
            assert time.monotonic() < deadline, "no rank has begun"
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=30)
    supervisor = Identity(**read_launches(paths)[0].supervisor)
    try:
        assert process.returncode == 130
        assert "Traceback" not in err
        assert f"hpcjobs cancel {paths.root}" in err
        assert not supervisor.is_dead()
        assert json.loads(shell.run("status", "long", "--json").out)["state"] == "running"
    finally:
        said = shell.run("cancel", "long")
    assert said.code == 0
    assert str(supervisor.pid) in said.out
    assert json.loads(shell.run("status", "long", "--json").out)["state"] == "cancelled"


def interrupted(command: list[str | Path], sign: Path) -> tuple[int, str]:
    """Exit code and stderr of `hpcjobs command`, which gets Ctrl-C as soon as `sign` has content."""
    words = [sys.executable, "-m", "hpcjobs", *map(str, command)]
    with subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=heed_ctrl_c
    ) as process:
        try:
            wait_for(lambda: sign.exists() and (sign.stat().st_size > 0 or process.poll() is not None), str(sign))
            os.killpg(process.pid, signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    return process.returncode, err


def test_ctrl_c_of_a_debug_run_says_what_stands(shell: Shell) -> None:
    paths, started = RunPaths(shell.runs / "d"), shell.home / "started"
    shell.write("wait.py", f"import time; open({str(started)!r}, 'w').write('1'); time.sleep(600)\n")
    metric = f"""
import time
class Slow:
    name = "slow"
    def score(self, completion, target, row):
        if row["id"] == "b":
            open({str(started)!r}, "w").write("1")
            time.sleep(600)
        return 1.0
"""
    shell.write("slow.py", metric)
    words = ["submit", "eval", *DUMMY, "--executor", "debug", "--data", "two.jsonl", "--set", "run.chunk_size=1"]
    code, err = interrupted([*words, "--name", "d", "--metric", "slow:Slow", "--yes"], started)
    assert code == 130
    assert err.splitlines()[-1] == f"interrupted: 1 of 2 samples are done and kept; next: hpcjobs resume {paths.root}"
    assert "Traceback" not in err
    started.unlink()
    code, err = interrupted(["submit", "script", "--executor", "debug", "--name", "s", "--", "wait.py"], started)
    assert (code, err.splitlines()[-1]) == (
        130, f"interrupted: its program has ended; next: hpcjobs resume {shell.runs / 's'}"
    )  # fmt: skip


def test_a_verb_that_is_interrupted_says_so(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hpcjobs.run_folder.paths.list_runs", interrupt)
    said = shell.run("runs")
    assert (said.code, said.err) == (130, "interrupted\n")
