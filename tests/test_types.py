"""Borders are typed: few signatures of hpcjobs/ say Any, and no dataclass of many fields is built by position."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "hpcjobs"
MOST = 0.05
MOST_BY_POSITION = 5


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """(where, function) of all functions and methods."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}", node


def signature(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.expr]:
    """The types of a signature: of all parameters, and of what it returns."""
    given = function.args
    several = [each for each in (given.vararg, given.kwarg) if each]
    for parameter in (*given.posonlyargs, *given.args, *given.kwonlyargs, *several):
        if parameter.annotation:
            yield parameter.annotation
    if function.returns:
        yield function.returns


def says_any(annotation: ast.expr) -> bool:
    """Whether the name stands anywhere in a type, also in one that is quoted."""
    return bool(re.search(r"\bAny\b", ast.unparse(annotation)))


def test_few_signatures_say_any() -> None:
    found = dict(functions())
    loose = [where for where, function in found.items() if any(map(says_any, signature(function)))]
    share = len(loose) / len(found)
    print(f"Any in {len(loose)} of {len(found)} signatures, {share:.1%}")
    assert share < MOST, "\n".join(loose)


def test_dataclasses_of_many_fields_are_built_by_keyword() -> None:
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if not isinstance(node, ast.ClassDef):
                continue
            words = [ast.unparse(one) for one in node.decorator_list]
            fields = sum(isinstance(one, ast.AnnAssign) for one in node.body)
            if any(word.startswith("dataclass") and "kw_only=True" not in word for word in words):
                wrong += [f"{path}:{node.lineno} {node.name}: {fields}"] * (fields > MOST_BY_POSITION)
    assert not wrong
