"""Collecting code: what `import` would find, names that are both copied and linked, files that are no Python."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcjobs.plan.code_tree import TOP, CodeTree, module_at


def test_a_package_comes_before_a_module_and_a_module_before_a_plain_folder(tmp_path: Path) -> None:
    assert module_at(tmp_path, "m") is None
    (tmp_path / "m").mkdir()
    assert module_at(tmp_path, "m") == tmp_path / "m"
    (tmp_path / "m.py").touch()
    assert module_at(tmp_path, "m") == tmp_path / "m.py"
    (tmp_path / "m" / "__init__.py").touch()
    assert module_at(tmp_path, "m") == tmp_path / "m"


@pytest.mark.parametrize("source", [b"import (", b"\x00", b"\xff\xfe", b"x = " + b"(" * 5000])
def test_what_cannot_be_parsed_imports_nothing(tmp_path: Path, source: bytes) -> None:
    (tmp_path / "m.py").write_bytes(source)
    tree = CodeTree(tmp_path / "run")
    tree.imports(tmp_path, ["m"])
    assert (list(tree.files), tree.imported()) == (["m.py"], [])


def test_statements_of_all_kinds(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("import a.b as c, d\nfrom e.f import g\nfrom . import h\nfrom .i import j\n")
    tree = CodeTree(tmp_path / "run")
    tree.file(tmp_path / "m.py", TOP / "m.py")
    assert tree.imported() == ["a", "d", "e"]


def test_a_name_that_is_copied_is_not_linked(tmp_path: Path) -> None:
    tree = CodeTree(tmp_path / "run")
    tree.files = {"data/x.py": b"", "prog": b""}
    tree.links = {"data": "/a", "prog": "/b", "rest": "/c", "rest/inside": "/d"}
    assert tree.snapshot().links == {"rest": "/c"}


def test_the_folder_of_the_run_is_not_linked_into_it(tmp_path: Path) -> None:
    (tmp_path / "prog.py").touch()
    (tmp_path / "out" / "runs").mkdir(parents=True)
    tree = CodeTree(tmp_path / "out" / "runs" / "r")
    tree.folder(tmp_path, TOP, top=True)
    assert tree.links == {}
