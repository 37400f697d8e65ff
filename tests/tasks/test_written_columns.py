"""Which names a template writes out, without a test of its own."""

from __future__ import annotations

import jinja2
import pytest

from hpcjobs.tasks.written_columns import lone_column, written_columns


@pytest.mark.parametrize(
    ("text", "written", "lone"),
    [
        ("{{ a }}", {"a"}, "a"),
        (" {{- a -}}\n", {"a"}, "a"),
        ("Q: {{ a }}", {"a"}, None),
        ("{{ a | trim | upper }} {{ b }}", {"a", "b"}, None),
        ("{{ a ~ ': ' ~ b }}", {"a", "b"}, None),
        ("{{ a.x }} {{ a[0] }} {{ a + 1 }}", set(), None),
        ("{% for one in a %}{{ loop.index }}{% endfor %}", set(), None),
        ("{% if a %}{{ a }}{% endif %} {{ b }}", {"b"}, None),
        ("{% if a is not none and b %}{{ a }}{{ b }}{% endif %}", set(), None),
        ("{{ a or b }}", set(), None),
        ("{{ a if b else 'c' }} {{ a }} {{ b }}", {"a"}, None),
        ("{{ a | d('x', true) }}", set(), None),
    ],
)
def test_what_a_template_writes_out(text: str, written: set[str], lone: str | None) -> None:
    parsed = jinja2.Environment().parse(text)
    assert written_columns(parsed) == written
    assert lone_column(parsed) == lone
