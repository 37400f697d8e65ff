"""The user's own code: what is copied, what is linked, what is left out."""

from __future__ import annotations

import itertools
import sys
import textwrap
from pathlib import Path

import pytest

from hpcjobs.metrics import find_metrics
from hpcjobs.plan import code_tree as codetree
from hpcjobs.plan.user_code import metric_code, program_code
from hpcjobs.run_folder.snapshot import Snapshot

_numbers = itertools.count()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def write(folder: Path, **files: str) -> None:
    """Files by their paths with `__` for `/`, all of them Python."""
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


def package(folder: Path, name: str) -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text("")
    return folder / name


def copied(snapshot: Snapshot) -> list[str]:
    return sorted(snapshot.files)


def metrics_of(home: Path, *names: str) -> Snapshot:
    find_metrics(names)
    return metric_code(names, home / "runs" / "r")


METRIC = "class Mine:\n    needs_target = False\n    def score(self, completion, target, row):\n        return 1.0\n"


def unique(word: str) -> str:
    """A module name that no other test has imported."""
    return f"{word}_{next(_numbers)}_of_usercode"


def test_a_metric_in_a_file_of_the_working_folder_and_what_it_imports_beside(home: Path) -> None:
    mine, helper, later, other = (unique(word) for word in ("mine", "helper", "later", "other"))
    write(home, **{mine: f"import json, {helper}\nimport numpy\n{METRIC}", helper: f"def f():\n    import {later}\n"})
    write(home, **{later: "", other: "this is no Python"})
    snapshot = metrics_of(home, "exact_match", f"{mine}:Mine")
    assert copied(snapshot) == sorted(f"{name}.py" for name in (mine, helper, later))
    assert snapshot.facts().files == 3
    assert not snapshot.note


def test_a_metric_in_a_package_stands_for_the_whole_package(home: Path) -> None:
    name = unique("pack")
    package(package(home, name), "deep")
    write(home / name, scores=METRIC, deep__more="")
    (home / name / "words.txt").write_text("a b")
    snapshot = metrics_of(home, f"{name}.scores:Mine")
    assert copied(snapshot) == [f"{name}/{f}.py" for f in ("__init__", "deep/__init__", "deep/more", "scores")]
    assert snapshot.links[f"{name}/words.txt"] == str(home / name / "words.txt")


def test_data_beside_a_metric_is_linked_and_packages_are_not(home: Path) -> None:
    mine = unique("mine")
    write(home, **{mine: METRIC})
    package(home, "shadow")
    (home / "answers.json").write_text("{}")
    (home / "runs" / "old").mkdir(parents=True)
    (home / "tables").mkdir()
    (home / ".hidden").write_text("")
    assert set(metrics_of(home, f"{mine}:Mine").links) == {"answers.json", "tables"}


def test_a_module_that_python_took_from_elsewhere_is_not_copied_from_here(home: Path) -> None:
    """On the login node the installed one won: a copy in front of it would win on the ranks."""
    mine = unique("mine")
    write(home, **{mine: f"import yaml\n{METRIC}", "yaml": "raise RuntimeError"})
    assert copied(metrics_of(home, f"{mine}:Mine")) == [f"{mine}.py"]


@pytest.mark.parametrize(
    "names", [(), ("exact_match",), ("hpcjobs.metrics.builtin.f1:F1",), ("http.cookies:SimpleCookie",)]
)
def test_what_is_installed_is_not_copied(home: Path, names: tuple[str, ...]) -> None:
    assert metric_code(names, home / "r").facts().values() == {}


def test_a_package_beyond_the_limits_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = unique("large")
    write(package(home, name), scores=METRIC)
    monkeypatch.setattr(codetree, "MAX_FILES", 1)
    snapshot = metrics_of(home, f"{name}.scores:Mine")
    assert snapshot.files == {}
    assert snapshot.facts().values() == {"note": snapshot.note}
    assert name in snapshot.note


@pytest.fixture
def project(home: Path) -> Path:
    """A program with code, data, and all that is never copied around it."""
    write(home, prog="import lib", lib="", parts__one="", parts__two__three="", venv__lib__x="", old__code__y="")
    write(home, __pycache__z="", hidden="")
    package(home, "pack")
    for folder in ("venv/pyvenv.cfg", "old/plan.json", "data/a.txt", "assets-1/b.txt", "runs/.keep", "pack/c.txt"):
        (home / folder).parent.mkdir(parents=True, exist_ok=True)
        (home / folder).write_text("")
    (home / ".git").mkdir()
    (home / ".git" / "hook.py").write_text("")
    (home / "parts" / "loop").symlink_to(home)
    (home / "broken").symlink_to(home / "nowhere")
    (home / "self").symlink_to(home / "self")
    return home


def test_a_program_with_all_that_it_can_import_from_its_folder(project: Path) -> None:
    snapshot = program_code(["prog.py", "--x"], project, project / "runs" / "r")
    assert copied(snapshot) == [
        "hidden.py", "lib.py", "pack/__init__.py", "parts/one.py", "parts/two/three.py", "prog.py",
    ]  # fmt: skip
    assert snapshot.links == {name: str(project / name) for name in ("assets-1", "data", "pack/c.txt")}
    assert (snapshot.program, snapshot.also, snapshot.note) == ("prog.py", "", "")


def test_a_module_of_the_working_folder_and_one_that_is_installed(project: Path) -> None:
    snapshot = program_code(["-m", "parts.one", "x"], project, project / "runs" / "r")
    assert snapshot.module == "parts.one"
    assert "lib.py" in snapshot.files
    for words in (["-m", "json.tool"], ["-m", "hpcjobs.runner"]):
        assert program_code(words, project, project / "r").facts().values() == {}


def test_a_program_in_a_folder_below_takes_what_it_imports_from_above(home: Path) -> None:
    write(home, tools__prog="import beside, lib", tools__beside="import more", lib="import deep", deep="", more="")
    write(home, tools__lib="# the nearer one", unused="")
    snapshot = program_code(["tools/prog.py"], home, home / "r")
    assert snapshot.program == "tools/prog.py"
    assert copied(snapshot) == ["deep.py", "lib.py", "more.py", "tools/beside.py", "tools/lib.py", "tools/prog.py"]


def test_a_program_elsewhere(home: Path) -> None:
    write(home, there__prog="import lib", there__lib="near = 1", here__lib="near = 0", here__other="")
    snapshot = program_code(["../there/prog.py"], home / "here", home / "r")
    assert (snapshot.program, copied(snapshot)) == ("prog.py", ["lib.py", "prog.py"])
    assert snapshot.files["lib.py"] == b"near = 1"


def test_a_program_without_a_suffix_and_one_behind_a_link(home: Path) -> None:
    write(home, real__beside="")
    (home / "real" / "train").write_text("import beside")
    (home / "run").symlink_to("real/train")
    snapshot = program_code(["run"], home, home / "r")
    assert snapshot.program == "real/train"  # where Python looks for what it imports
    assert copied(snapshot) == ["real/beside.py", "real/train"]


def test_programs_that_are_installed_and_options_of_python(home: Path) -> None:
    assert program_code([str(Path(sys.executable).with_name("pytest"))], home, home / "r").facts().values() == {}
    assert "-W" in program_code(["-W", "error", "prog.py"], home, home / "r").note


@pytest.mark.parametrize(("limit", "files"), [(5, 5), (4, 3), (2, 1)])
def test_beyond_the_limits_what_is_imported_then_the_program_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch, limit: int, files: int
) -> None:
    write(home, there__prog="import a", there__a="import b", there__b="", there__c="", there__d="")
    monkeypatch.setattr(codetree, "MAX_FILES", limit)
    snapshot = program_code(["there/prog.py"], home, home / "r")
    assert len(snapshot.files) == files
    assert "there/prog.py" in snapshot.files
    assert bool(snapshot.note) == bool(snapshot.also) == (files < 5)


def test_size_and_names_are_limited_too(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home, prog="", unused="#" * 1000)
    monkeypatch.setattr(codetree, "MAX_BYTES", 500)
    assert copied(program_code(["prog.py"], home, home / "r")) == ["prog.py"]
    monkeypatch.undo()
    monkeypatch.setattr(codetree, "MAX_ENTRIES", 1)
    assert copied(program_code(["prog.py"], home, home / "r")) == ["prog.py"]
    monkeypatch.undo()
    (home / "prog.py").write_text("#" * 30_000_000)
    snapshot = program_code(["prog.py"], home, home / "r")
    assert snapshot.facts().values() == {"note": snapshot.note}


def test_too_many_files_beside_the_code_are_not_linked(home: Path) -> None:
    write(home, prog="")
    for number in range(1001):
        (home / f"{number}.txt").touch()
    snapshot = program_code(["prog.py"], home, home / "r")
    assert (copied(snapshot), snapshot.links) == (["prog.py"], {})
    assert "not linked" in snapshot.note
