"""What a task's code does at its import is named when planning."""

from __future__ import annotations

from pathlib import Path

from hpcjobs.tasks.lmeval.import_notes import import_notes

TASK = "task: own\ndataset_path: json\nprocess_results: !function utils.score\ndoc_to_text: q\n"
UTILS = """
import subprocess
import helper
from lm_eval.tasks.ifeval import instructions_util

def later():
    subprocess.run(["true"])

def now():
    subprocess.check_output(["true"])

class Loaded:
    text = subprocess.run(["true"])

now()
score = lambda doc, results: later()
"""


def test_what_runs_at_import_is_named_and_what_runs_later_is_not(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(TASK)
    (tmp_path / "utils.py").write_text(UTILS)
    (tmp_path / "helper.py").write_text("try:\n    import nltk\n    nltk.download()\nexcept OSError:\n    pass\n")
    found = import_notes([tmp_path / "own.yaml"])
    utils, helper, library = sorted(found, key=lambda note: ["utils.py", "helper.py", "util.py"].index(_name(note)))
    assert f"{tmp_path}/utils.py starts programs when it is imported, in each rank too" in utils
    assert "subprocess.check_output, line 10" in utils
    assert "subprocess.run, line 13" in utils
    assert "line 7" not in utils
    assert f"{tmp_path}/helper.py downloads" in helper
    assert "(nltk.download, line 3)" in helper
    assert "ifeval/instructions_util.py downloads" in library


def test_a_task_without_such_code_has_no_note(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(TASK)
    (tmp_path / "utils.py").write_text("import subprocess\n\ndef score(doc, results):\n    subprocess.run(['true'])\n")
    assert import_notes([tmp_path / "own.yaml"]) == []
    (tmp_path / "utils.py").write_text("def score(:")
    assert import_notes([tmp_path / "own.yaml"]) == []


def _name(note: str) -> str:
    return Path(note.split(" ", 1)[0]).name.removeprefix("instructions_")
