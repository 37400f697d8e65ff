"""Everything public in hpcjobs has a docstring."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import hpcjobs

ROOT = Path(hpcjobs.__file__).parent
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def without_docstring(node: ast.Module | ast.ClassDef, name: str) -> Iterator[str]:
    """The names of `node` and its public functions, classes and methods that have no docstring."""
    if not ast.get_docstring(node):
        yield name
    for inner in node.body:
        if isinstance(inner, ast.ClassDef) and not inner.name.startswith("_"):
            yield from without_docstring(inner, f"{name}.{inner.name}")
        elif isinstance(inner, DEFINITIONS) and not inner.name.startswith("_") and not ast.get_docstring(inner):
            yield f"{name}.{inner.name}"


def test_everything_public_has_a_docstring() -> None:
    files = sorted(ROOT.rglob("*.py"))
    assert len(files) > 200
    missing = [name for path in files for name in without_docstring(ast.parse(path.read_text()), str(path))]
    assert missing == []


def test_what_lacks_a_docstring_is_found() -> None:
    source = (
        '"""A module."""\nclass A:\n    """A class."""\n    def b(self): ...\n    def _c(self): ...\n'
        "def d(): ...\n"
    )
    assert list(without_docstring(ast.parse(source), "m")) == ["m.A.b", "m.d"]
