"""Code of others that ends its process: a named error instead, and never a rank or a command that ends 0."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcjobs.commands.merge import exit_code, merge_and_report
from hpcjobs.errors import ConfigError, DataError
from hpcjobs.metrics import find_metrics
from hpcjobs.plugins import ExitError, contained
from hpcjobs.run_folder.files import read_json
from hpcjobs.worker.signals import Terminated
from tests.runs import Ranks, guarded_rank, hpcjobs, plan_run, records_in


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("sys.exit()", "sys.exit()"), ("sys.exit(0)", "sys.exit(0)"), ("quit('bye')", "sys.exit('bye')"),
        ("os._exit(0)", "os._exit(0)"), ("raise SystemExit", "sys.exit()"),
    ],
)  # fmt: skip
def test_code_that_ends_the_process_is_an_error_that_names_the_call(call: str, said: str) -> None:
    with pytest.raises(ExitError) as error, contained(), contained():
        exec(call, {"sys": sys, "os": os, "quit": sys.exit})
    assert f"called {said};" in str(error.value)


def test_a_signal_ends_the_rank_and_a_forked_process_itself() -> None:
    with pytest.raises(Terminated), contained():
        raise Terminated("SIGTERM")
    with contained():
        child = os.fork()
        if not child:
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    alone = subprocess.run(
        [sys.executable, "-c", "import os\nfrom hpcjobs.plugins import contained\nwith contained(): pass\nos._exit(5)"],
        check=False,
    )
    assert alone.returncode == 5, "outside of the block it is as ever"


@pytest.mark.parametrize(
    ("call", "code"), [("pass", 0), ("sys.exit(3)", 3), ("sys.exit('no')", 1), ("raise ValueError", 1)]
)
def test_a_forked_process_does_not_go_on_as_a_second_rank(call: str, code: int) -> None:
    with contained():
        child = os.fork()
        if not child:
            with contained():
                pass
            exec(call, {"sys": sys})
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code


def test_what_is_no_exception_is_one_and_ctrl_c_is_not() -> None:
    with pytest.raises(ExitError, match="raised CancelledError: late"), contained():
        raise asyncio.CancelledError("late")
    with pytest.raises(KeyboardInterrupt), contained():
        raise KeyboardInterrupt


@pytest.mark.parametrize("end", ["sys.exit(0)", "os._exit(0)"])
def test_a_metrics_module_that_ends_the_process_when_it_is_imported_is_refused(
    ram: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    (ram / "ends_at_import.py").write_text(f"import os, sys\n{end}\n")
    monkeypatch.chdir(ram)
    monkeypatch.syspath_prepend(str(ram))
    with pytest.raises(ConfigError, match=r"'ends_at_import:Own' cannot be used: ExitError: .* called"):
        find_metrics(["ends_at_import:Own"])
    sets = ("--set", "model.engine=dummy", "--set", "task.metrics=[ends_at_import:Own]")
    assert hpcjobs("submit", "eval", *sets, "--dry-run").returncode == 2


OWN = """
import os, sys

class Ends:
    name = "ends"
    needs_target = False

    def score(self, completion, target, row):
        if row["id"] == "row-3":
            {}
        return 1.0
"""


@pytest.mark.parametrize("end", ["sys.exit(0)", "os._exit(0)"])
def test_a_metric_that_ends_the_process_costs_that_sample_its_score(
    ram: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    (ram / "ends_in_score.py").write_text(OWN.format(end))
    monkeypatch.chdir(ram)
    monkeypatch.syspath_prepend(str(ram))
    monkeypatch.delitem(sys.modules, "ends_in_score", raising=False)
    task = {"prompt": "{{ question }}", "target": None, "metrics": ["ends_in_score:Ends"]}
    paths = plan_run(ram / "run", 12, task=task)
    with Ranks(paths, 1, main=guarded_rank) as ranks:
        ranks.start(0)
        assert ranks.finish(0) == [0]
    assert merge_and_report(paths).complete
    assert exit_code(paths) == 3
    warnings = read_json(paths.metrics)["warnings"]
    assert any(f"ExitError: code that is not hpcjobs' own called {end}" in line for line in warnings)
    assert any("(first: row-3)" in line for line in warnings)


@pytest.mark.parametrize("loop", ["while True: pass", "import time; time.sleep(60)"])
def test_a_metric_without_end_costs_that_sample_its_score(
    ram: Path, monkeypatch: pytest.MonkeyPatch, loop: str
) -> None:
    """In the rank, and in `score`, which judges the sample again."""
    (ram / "endless_metric.py").write_text(OWN.format(loop))
    monkeypatch.chdir(ram)
    monkeypatch.syspath_prepend(str(ram))
    monkeypatch.delitem(sys.modules, "endless_metric", raising=False)
    task = {"prompt": "{{ question }}", "target": None, "metrics": ["endless_metric:Ends"]}
    paths = plan_run(ram / "run", 12, task=task, run={"metric_timeout": 0.3})
    with Ranks(paths, 1, main=guarded_rank) as ranks:
        ranks.start(0)
        assert ranks.finish(0) == [0]
    assert merge_and_report(paths).complete
    assert exit_code(paths) == 3
    said = "TimeoutError: metric ends took more than 0.3 s (run.metric_timeout)"
    assert any(said in line and "(first: row-3)" in line for line in read_json(paths.metrics)["warnings"])
    assert hpcjobs("score", str(paths.root)).returncode == 3
    assert any(said in line for line in read_json(paths.metrics)["warnings"])


ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


def test_a_template_without_end_is_an_error_of_its_sample(ram: Path) -> None:
    prompt = "{% if question.startswith('x') %}" + ENDLESS + "{% endif %}{{ question }}"
    rows = [{"id": f"row-{n}", "question": "x" if n == 3 else "y"} for n in range(12)]
    (ram / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"prompt": prompt, "target": "{{ question }}", "metrics": ["exact_match"]}
    data = {"name": str(ram / "rows.jsonl"), "id_column": "id"}
    paths = plan_run(ram / "run", 12, task=task, data=data, run={"metric_timeout": 0.3})
    with Ranks(paths, 1, main=guarded_rank) as ranks:
        ranks.start(0)
        assert ranks.finish(0) == [0]
    merge_and_report(paths)
    assert read_json(paths.metrics)["counts"]["errors"] == 1
    [said] = [record.error.message for record in records_in(paths.journal("a", 0)) if record.error]
    assert "task.prompt took more than 0.3 s (run.metric_timeout)" in said


def test_a_template_without_end_ends_the_plan(ram: Path) -> None:
    task = {"prompt": ENDLESS, "target": "{{ question }}", "metrics": ["exact_match"]}
    with pytest.raises(DataError, match=r"fail on the first row \(id .*\): task.prompt took more than 0\.2 s"):
        plan_run(ram / "run", 12, task=task, run={"metric_timeout": 0.2})


def test_a_rank_that_c_code_ends_with_0_has_not_ended_well(ram: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`exit` of the C library asks nobody: the guard sees that the rank has not said that its work is over."""
    (ram / "ends_by_c.py").write_text(OWN.format("import ctypes; ctypes.CDLL(None)._exit(0)"))
    monkeypatch.chdir(ram)
    monkeypatch.syspath_prepend(str(ram))
    task = {"prompt": "{{ question }}", "target": None, "metrics": ["ends_by_c:Ends"]}
    paths = plan_run(ram / "run", 12, task=task)
    with Ranks(paths, 1, main=guarded_rank) as ranks:
        ranks.start(0)
        assert ranks.finish(0) == [1]
    beat = read_json(paths.heartbeat("a", 0))
    assert "exit code 0, in the middle of its work" in beat["first_error"]
    assert beat["state"] == "dead"
    assert not merge_and_report(paths).complete
