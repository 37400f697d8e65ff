"""Which files of the user's travel with an lm_eval task."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcjobs.errors import ConfigError
from hpcjobs.tasks.lmeval.user_files import UserTask, with_includes
from tests.lmeval_tasks import write_tasks


def test_yaml_and_python_are_copied_and_the_rest_is_linked(tmp_path: Path) -> None:
    folder = write_tasks(tmp_path / "tasks")
    (folder / "more").mkdir()
    (folder / "more" / "prompt.txt").write_text("Say it.")
    (folder / "runs" / "old").mkdir(parents=True)
    (folder / "runs" / "old" / "plan.json").write_text("{}")
    (folder / "runs" / "old" / "utils.py").write_text("")
    (folder / "here" / "code").mkdir(parents=True)
    (folder / "here" / "code" / "new.yaml").write_text("")
    made = UserTask(folder).files(folder / "here")
    assert "utils.py" in made.copied
    assert made.copied["pick.yaml"] == (folder / "pick.yaml").read_bytes()
    assert made.links["more/prompt.txt"] == str(folder / "more" / "prompt.txt")
    assert not [name for name in (*made.copied, *made.links) if "old" in name or "new.yaml" in name]


def test_files_that_a_task_includes_from_elsewhere_are_laid_out_as_they_are(tmp_path: Path) -> None:
    own, base = tmp_path / "a" / "own", tmp_path / "b"
    own.mkdir(parents=True)
    (base / "sub").mkdir(parents=True)
    (own / "t.yaml").write_text("include: ../../b/base_yaml\ntask: t\n")
    (base / "base_yaml").write_text("include: more.yaml\ndoc_to_text: !function sub.code.text\n")
    (base / "more.yaml").write_text("output_type: generate_until\n")
    (base / "sub" / "code.py").write_text("def text(doc):\n    return ''\n")
    (base / "unrelated.yaml").write_text("task: other\n")
    (base / "words.txt").write_text("a b\n")
    task = UserTask(own, None, with_includes([own / "t.yaml"]))
    made = task.files(tmp_path / "run")
    assert set(made.copied) == {"a/own/t.yaml", "b/base_yaml", "b/more.yaml", "b/sub/code.py"}
    assert set(made.links) == {"b/words.txt"}
    assert (task.top, task.place(own), task.place(None)) == (tmp_path, "a/own", "")
    made.write(tmp_path / "copy")
    assert (tmp_path / "copy" / "b" / "words.txt").read_text() == "a b\n"


def test_a_folder_of_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcjobs.tasks.lmeval.user_files.MAX_FILES", 5)
    with pytest.raises(ConfigError, match="name the folder of the task alone"):
        UserTask(write_tasks(tmp_path / "tasks")).files(tmp_path)
