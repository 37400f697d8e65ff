"""Which columns a jinja2 template writes out as they are, without asking whether there is a value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jinja2 import nodes

_LOOKS_AT_NULL = {"default", "d"}
# Filters that take a list's items, and of a text its characters.
_TAKES_ITEMS = {
    "batch", "count", "first", "groupby", "items", "join", "last", "length", "list", "map", "max", "min", "random",
    "reject", "rejectattr", "reverse", "select", "selectattr", "slice", "sort", "sum", "unique",
}  # fmt: skip


def written_columns(parsed: nodes.Template) -> set[str]:
    """The names whose values stand in the text of a template, apart from those that it also tests.

    `{{ a }}`, `{{ a | trim }}` and `{{ a ~ b }}` write a value out; `{% if a %}`, `{{ a or '' }}` and
    `{{ a | default('', true) }}` test one.
    """
    outputs = (part for node in parsed.find_all(nodes.Output) for part in node.nodes)
    return set(_names(outputs)) - set(_tested(parsed))


def lone_column(parsed: nodes.Template) -> str | None:
    """The name in a template that is `{{ name }}` and nothing else."""
    parts = [part for node in parsed.body if isinstance(node, nodes.Output) for part in node.nodes]
    found = [part for part in parts if not (isinstance(part, nodes.TemplateData) and not part.data.strip())]
    one = found[0] if len(found) == 1 and len(parsed.body) == 1 else None
    return one.name if isinstance(one, nodes.Name) else None


def opened_columns(parsed: nodes.Template) -> set[str]:
    """The names whose items a template takes: of a list those, of a text its characters."""
    taken: list[nodes.Node | None] = [loop.iter for loop in parsed.find_all(nodes.For)]
    taken += [one.node for one in parsed.find_all(nodes.Getitem) if not isinstance(one.arg, nodes.Slice)]
    taken += [one.node for one in parsed.find_all(nodes.Filter) if one.name in _TAKES_ITEMS]
    return {node.name for node in taken if isinstance(node, nodes.Name)}


def _names(parts: Iterable[nodes.Node]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, nodes.Name):
            yield part.name
        elif isinstance(part, nodes.Filter) and part.node is not None:
            yield from _names([part.node])
        elif isinstance(part, nodes.Concat):
            yield from _names(part.nodes)


def _tested(parsed: nodes.Template) -> Iterator[str]:
    tests: list[nodes.Node] = [node.test for node in parsed.find_all(nodes.If)]
    tests += [node.test for node in parsed.find_all(nodes.CondExpr)]
    tests += list(parsed.find_all((nodes.Or, nodes.And, nodes.Test)))
    tests += [node for node in parsed.find_all(nodes.Filter) if node.name in _LOOKS_AT_NULL]
    for test in tests:
        names = [test] if isinstance(test, nodes.Name) else test.find_all(nodes.Name)
        yield from (node.name for node in names)
