"""The snapshot: what was there when planning is what runs, whatever is edited afterwards."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.config import Config
from hpcjobs.merge.eval import merge
from hpcjobs.plan.script import make_script_plan
from hpcjobs.run_folder.files import read_json, write_json
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan, PlanCode
from hpcjobs.run_folder.provenance import changed_since, code_facts
from hpcjobs.run_folder.snapshot import Snapshot, import_as_planned, program_command
from tests.runs import plan_run, run_ranks

METRIC = """
import {helper}


class Length:
    needs_target = False

    def score(self, completion, target, row):
        return {helper}.WORTH
"""
PROGRAM = """
import sys
from pathlib import Path

import lib

if __name__ == "__main__":
    print(lib.WHEN, Path("cwd.txt").read_text(), sys.argv[1:])
    print(Path(__file__).with_name("beside.txt").read_text())
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def test_files_links_and_modes(tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("all of it")
    links = {"p/data.txt": str(tmp_path / "data.txt"), "only/links": str(tmp_path)}
    snapshot = Snapshot(files={"p/a.py": b"1", "b.py": b"2"}, links=links, note="some note")
    snapshot.write(tmp_path / "code")
    code = tmp_path / "code"
    assert (code / "p" / "a.py").read_bytes() == b"1"
    assert (code / "p" / "data.txt").read_text() == "all of it"
    assert (code / "only" / "links").is_symlink()
    assert stat.S_IMODE((code / "b.py").stat().st_mode) == 0o600
    assert stat.S_IMODE((code / "p").stat().st_mode) == 0o700
    assert snapshot.facts().values() == {"sha256": snapshot.sha256, "files": 2, "note": "some note"}


def test_nothing_to_copy_makes_no_folder_and_says_nothing(tmp_path: Path) -> None:
    Snapshot().write(tmp_path / "code")
    assert not (tmp_path / "code").exists()
    assert Snapshot().facts().values() == {}


def test_the_hash_is_of_names_and_contents() -> None:
    kinds: list[dict[str, bytes]] = [{"a.py": b"1"}, {"b.py": b"1"}, {"a.py": b"2"}, {"a.py": b"", "b.py": b"1"}, {}]
    assert len({Snapshot(files=files).sha256 for files in kinds}) == len(kinds)
    assert Snapshot(files={"a": b"1", "b": b"2"}).sha256 == Snapshot(files={"b": b"2", "a": b"1"}).sha256


def planned(*argv: str) -> tuple[RunPaths, Plan]:
    draft = make_script_plan(Config(), list(argv), Path("runs/r"))
    draft.write()
    return draft.paths, Plan.read(draft.paths.plan)


def ran(paths: RunPaths, plan: Plan, **env: str) -> list[str]:
    """What the program of a script run prints, started as a rank starts it."""
    words, folders = program_command(paths, plan.code, plan.argv)
    env = os.environ | {"PYTHONPATH": os.pathsep.join(folders)} | env
    done = subprocess.run(words, env=env, cwd=plan.code.cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def write_project(home: Path, folder: str) -> Path:
    """A program in `folder` that imports `lib` and reads data from beside it and from the working folder."""
    place = home / folder
    place.mkdir(exist_ok=True)
    (place / "prog.py").write_text(PROGRAM)
    (place / "lib.py").write_text("WHEN = 'planned'\n")
    (place / "beside.txt").write_text("data beside")
    (home / "cwd.txt").write_text("data here")
    return place


# With PYTHONSAFEPATH Python itself keeps a program's folder away from its imports, but not the working folder.
@pytest.mark.parametrize(("folder", "env"), [(".", {}), (".", {"PYTHONSAFEPATH": "1"}), ("tools", {})])
def test_a_program_runs_as_planned_and_finds_its_data(home: Path, folder: str, env: dict[str, str]) -> None:
    place = write_project(home, folder)
    paths, plan = planned(f"{folder}/prog.py", "--x", "a b")
    for name in ("prog.py", "lib.py"):
        (place / name).write_text("raise RuntimeError('edited')")
    assert ran(paths, plan, **env) == ["planned data here ['--x', 'a b']", "data beside"]


@pytest.mark.parametrize("module", ["prog", "pack.prog", "pack"])
@pytest.mark.parametrize("env", [{}, {"PYTHONSAFEPATH": "1"}])
def test_a_module_runs_as_planned_though_python_looks_here_first(home: Path, module: str, env: dict[str, str]) -> None:
    write_project(home, ".")
    (home / "pack").mkdir()
    for name in ("__init__.py", "__main__.py", "prog.py"):
        (home / "pack" / name).write_text("" if name == "__init__.py" else PROGRAM)
    (home / "pack" / "beside.txt").write_text("data beside")
    paths, plan = planned("-m", module, "--x")
    for path in home.rglob("*.py"):
        if paths.root not in path.parents:
            path.write_text("raise RuntimeError('edited')")
    assert ran(paths, plan, **env) == ["planned data here ['--x']", "data beside"]


def test_a_module_may_start_processes_of_its_own(home: Path) -> None:
    """multiprocessing's spawn imports the main module again: by its name, from the snapshot."""
    (home / "many.py").write_text(
        "import multiprocessing as m\n\ndef f(n):\n    return n + 1\n\nif __name__ == '__main__':\n"
        "    with m.get_context('spawn').Pool(1) as pool:\n        print(pool.map(f, [1, 2]))\n"
    )
    for argv in (["-m", "many"], ["many.py"]):
        draft = make_script_plan(Config(), argv, Path(f"runs/r{len(argv)}"))
        draft.write()
        (home / "many.py").rename(home / "kept")
        (home / "many.py").write_text("raise RuntimeError('edited')")
        assert ran(draft.paths, draft.plan) == ["[2, 3]"]
        (home / "kept").rename(home / "many.py")


def test_an_installed_module_runs_as_before(home: Path) -> None:
    paths, plan = planned("-m", "json.tool", "--help")
    command = [sys.executable, "-u", "-m", "json.tool", "--help"]
    assert program_command(paths, plan.code, plan.argv) == (command, [str(home)])
    assert "snapshot" not in plan.code.values()
    assert not paths.code.exists()


def test_the_plan_says_what_was_copied(home: Path) -> None:
    write_project(home, ".")
    paths, plan = planned("prog.py")
    assert plan.code.snapshot.values() | {"sha256": ""} == {"sha256": "", "files": 2, "program": "prog.py"}
    assert any(line.startswith("code    2 of your own files") for line in plan.summary())
    (home / "lib.py").write_text("WHEN = 'later'")
    later = make_script_plan(Config(), ["prog.py"], Path("runs/s")).plan
    assert later.code.snapshot.sha256 != plan.code.snapshot.sha256
    assert "prog.py" in os.listdir(paths.code)


def metric_run(home: Path, name: str) -> RunPaths:
    """A planned eval of 12 rows with a metric of the user's own, which then is edited to something broken."""
    (home / f"{name}.py").write_text(METRIC.format(helper=f"{name}_helper"))
    (home / f"{name}_helper.py").write_text("WORTH = 0.25\n")
    paths = plan_run(home / "out" / "r", 12, task={"metrics": [f"{name}:Length"]})
    for suffix in ("", "_helper"):
        (home / f"{name}{suffix}.py").write_text("raise RuntimeError('edited')")
    return paths


def test_an_eval_scores_with_the_metric_that_was_planned(home: Path) -> None:
    paths = metric_run(home, "snapshot_metric_one")
    run_ranks(paths, 2)
    merged = merge(paths)
    assert merged.complete
    assert read_json(paths.metrics)["metrics"]["Length"]["value"] == 0.25


def test_a_merge_elsewhere_finds_the_metric_too(home: Path) -> None:
    paths = metric_run(home, "snapshot_metric_two")
    run_ranks(paths, 1)
    elsewhere = home / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "hpcjobs", "merge", str(paths.root)], cwd=elsewhere, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "0.2500" in done.stdout


def test_the_snapshot_comes_first_and_what_was_not_copied_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["first"])
    paths, code = RunPaths(tmp_path), PlanCode(cwd="/where/planned")
    import_as_planned(paths, code)
    assert sys.path == ["first", "/where/planned"]
    paths.code.mkdir()
    for _ in range(2):
        import_as_planned(paths, code)
    assert sys.path == [str(paths.code), "first", "/where/planned"]


def test_a_change_of_hpcjobs_itself_is_told_by_the_main_rank_alone(tmp_path: Path) -> None:
    paths = plan_run(tmp_path / "r", 6)
    values: dict[str, Any] = read_json(paths.plan)
    assert changed_since(PlanCode.of(values["code"])) == ""
    planned_with = values["code"]["hpcjobs_sha256"]
    values["code"] |= {"hpcjobs": "0.0.1", "hpcjobs_sha256": "f" * 64}
    write_json(paths.plan, values)
    run_ranks(paths, 2)
    logs = [paths.rank_log("a", rank).read_text() for rank in range(2)]
    (line,) = [line for line in logs[0].splitlines() if "hpcjobs has changed" in line]
    assert "planned with 0.0.1" in line
    assert "f" * 64 in line
    assert planned_with in line
    assert "hpcjobs has changed" not in logs[1]


def test_a_plan_of_before_there_was_a_hash_says_nothing() -> None:
    assert changed_since(PlanCode(hpcjobs="0.0.1")) == ""
    assert len(code_facts().hpcjobs_sha256 or "") == 64
