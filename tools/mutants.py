"""Mutants of a Python file: the same code with one small fault, of the kinds that people make."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

Node = TypeVar("Node", bound=ast.AST)

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
TWINS = {"min": "max", "max": "min", "any": "all", "all": "any"}
# What only says something to people: the words of an error, the log, types and imports.
LOGS = {"log", "logger", "logging", "warnings"}
SKIPPED = (ast.Import, ast.ImportFrom, ast.arguments)
REMOVED = (ast.AugAssign, ast.Raise, ast.Continue, ast.Break, ast.Delete)
# Functions whose first two arguments may change places.
COMMUTING = {"min", "max", "equal", "and_", "or_", "suppress"}


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One change of a file: where it is, the code there before and after, its statement, and the whole text with it."""

    path: str
    scope: str
    lines: range
    before: str
    after: str
    statement: str
    text: str

    @property
    def key(self) -> str:
        """Names the change also when lines above it move: `path scope: before -> after | statement`."""
        return f"{self.path} {self.scope}: {self}"

    @property
    def place(self) -> str:
        """Names every change of its statement."""
        return f"{self.path} {self.scope}: {self.statement}"

    def __str__(self) -> str:
        change = f"{self.before} -> {self.after}"
        return change if self.before == self.statement else f"{change} | {self.statement}"


def mutants(path: str, text: str) -> Iterator[Mutant]:
    """Every mutant of a file, in the order of its lines."""
    tree = ast.parse(text)
    for site in _sites(tree, (), range(1, 2), tree):
        for new in _changes(site.node):
            changed = site.put(new)
            whole = ast.unparse(tree)
            site.put(site.node)
            yield Mutant(
                path=path, scope=".".join(site.scope) or "module", lines=site.lines,
                before=_short(site.node), after=_short(changed), statement=_short(site.statement), text=whole,
            )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Site:
    """A node, and its place in the one above it; `lines` are those of its statement, for one with a body its head."""

    node: ast.AST
    parent: ast.AST
    field: str
    place: int | None
    scope: tuple[str, ...]
    lines: range
    statement: ast.AST

    def put(self, new: ast.AST) -> ast.AST:
        if self.place is None:
            setattr(self.parent, self.field, new)
        else:
            getattr(self.parent, self.field)[self.place] = new
        return new


def _sites(parent: ast.AST, scope: tuple[str, ...], lines: range, statement: ast.AST) -> Iterator[_Site]:
    for field, value in ast.iter_fields(parent):
        if field in {"annotation", "returns", "decorator_list", "format_spec", "type_params"}:
            continue
        for place, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(node, ast.AST) or isinstance(node, SKIPPED) or _only_words(node):
                continue
            here, inside, own = (_head(node), node, scope) if isinstance(node, ast.stmt) else (lines, statement, scope)
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                own = (*scope, node.name)
            yield _Site(node=node, parent=parent, field=field, place=place, scope=own, lines=here, statement=inside)
            if not isinstance(node, ast.Raise):
                yield from _sites(node, own, here, inside)


def _only_words(node: ast.AST) -> bool:
    """Whether a node only tells people or type checkers something, or asserts something, as strict=True of zip."""
    if isinstance(node, ast.keyword) and node.arg == "strict":
        return True
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        return True
    if not isinstance(node, ast.Expr):
        return False
    if not isinstance(node.value, ast.Call):
        return isinstance(node.value, ast.Constant)
    return ast.unparse(node.value.func).partition(".")[0] in LOGS


def _head(node: ast.stmt) -> range:
    body = getattr(node, "body", None)
    last = body[0].lineno - 1 if body else node.end_lineno or node.lineno
    return range(node.lineno, max(last, node.lineno) + 1)


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(ops=[only]):
            for other in COMPARISONS[type(only)]:
                yield _with(node, ops=[other()])
        case ast.BoolOp():
            yield _with(node, op=ast.And() if isinstance(node.op, ast.Or) else ast.Or())
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node.operand
        case ast.BinOp() | ast.AugAssign() if type(node.op) in OPERATORS:
            yield _with(node, op=OPERATORS[type(node.op)]())
        case ast.Constant():
            yield from _constants(node)
        case ast.Slice():
            yield from _slices(node)
        case ast.If() | ast.IfExp() | ast.While() if isinstance(node.test, ast.Name | ast.Attribute | ast.Call):
            yield _with(node, test=ast.UnaryOp(ast.Not(), node.test))
        case ast.comprehension() if node.ifs:
            yield _with(node, ifs=node.ifs[1:])
        case ast.Call():
            yield from _calls(node)
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield ast.Return(ast.Constant(None))
    if isinstance(node, REMOVED) or _is_effect(node):
        yield ast.Pass()


def _is_effect(node: ast.AST) -> bool:
    """Whether a statement can be removed and every name still be there."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call)
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute | ast.Subscript)


def _constants(node: ast.Constant) -> Iterator[ast.Constant]:
    if isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node.value, int):
        yield ast.Constant(node.value + 1)
        yield ast.Constant(node.value - 1)
    elif isinstance(node.value, float):
        yield ast.Constant(node.value * 1.25 + (node.value == 0))


def _slices(node: ast.Slice) -> Iterator[ast.Slice]:
    """Off by one; bounds that are constants are changed as constants."""
    for field in ("lower", "upper"):
        bound = getattr(node, field)
        if bound is not None and not isinstance(bound, ast.Constant | ast.UnaryOp):
            yield _with(node, **{field: ast.BinOp(bound, ast.Add(), ast.Constant(1))})


def _calls(node: ast.Call) -> Iterator[ast.Call]:
    if isinstance(node.func, ast.Name) and node.func.id in TWINS:
        yield _with(node, func=ast.Name(TWINS[node.func.id]))
    first, name = node.args[:2], ast.unparse(node.func).rpartition(".")[2]
    plain = len(first) == 2 and not any(isinstance(one, ast.Starred) for one in first)
    if plain and name not in COMMUTING and not _same(*first):
        yield _with(node, args=[first[1], first[0], *node.args[2:]])


def _with(node: Node, **fields: object) -> Node:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _same(one: ast.AST, other: ast.AST) -> bool:
    return ast.dump(one) == ast.dump(other)


def _short(node: ast.AST) -> str:
    """The code of a node, of a statement with a body its head."""
    if isinstance(node, ast.comprehension):
        return " ".join(["for ...", *(f"if {ast.unparse(one)}" for one in node.ifs)])
    return ast.unparse(node).partition("\n")[0]
