"""Columns in templates, whatever they are called, against plain jinja2."""

from __future__ import annotations

from typing import Any

import jinja2
import pytest

from hpcjobs.config import TaskConfig
from hpcjobs.errors import ConfigError
from hpcjobs.tasks import template
from hpcjobs.tasks.prompts import Prompts
from hpcjobs.tasks.template import Template, python_texts

# Names of jinja2's own, of Python's, and of what stands in the code that renders them.
NAMES = (
    "self", "loop", "range", "row", "dict", "namespace", "lipsum", "cycler", "joiner", "super", "caller", "varargs",
    "kwargs", "args", "context", "environment", "undefined", "resolve", "missing", "none", "None", "true", "False",
    "not", "and", "if", "is", "class", "import", "def", "lambda", "print", "text", "value", "template", "result",
    "index", "id", "items", "keys", "get", "_", "__class__", "a b", "a.b", "a-b", "ä", "x y.z",
)  # fmt: skip


def by_hand(template: str, row: dict[str, Any]) -> str | None:
    """What jinja2 renders; None where it refuses the template or the row."""
    try:
        return jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(template).render(row)
    except jinja2.TemplateError:
        return None


@pytest.mark.parametrize("name", NAMES)
def test_a_column_of_any_name_is_written_or_refused(name: str) -> None:
    row, text = {name: "7 <of> 'it'", "a": "other"}, f"{{{{ {name} }}}}"
    theirs = by_hand(text, row)
    if theirs != row[name]:  # the column cannot be named at all
        with pytest.raises((ConfigError, jinja2.UndefinedError), match=r"rename it|names column|no attribute 'b'"):
            Template(text, "task.prompt", list(row)).text(row)
        return
    template = Template(text, "task.prompt", list(row))
    assert (template.text(row), template.value(row), template.columns) == (theirs, theirs, {name})
    assert template.written == {name}


def test_rows_are_asked_with_columns_of_such_names_beside_them() -> None:
    row = dict.fromkeys(NAMES, "x") | {"index": 0, "id": "r", "q": "one", "gold": ["1", "2"]}
    task = TaskConfig(prompt="{{ q }}", target="{{ gold }}")
    prompts = Prompts(task, list(row))
    assert (prompts.request(row, 0).prompt, prompts.target(row)) == ("one", ["1", "2"])


@pytest.mark.parametrize("name", ["range", "dict", "lipsum", "cycler", "joiner", "namespace", "self"])
def test_a_function_of_jinja_is_called_but_never_written(name: str) -> None:
    for text in (f"{{{{ {name} }}}}", f"Q: {{{{ {name} | upper }}}}", f"{{% if {name} %}}x{{% endif %}}"):
        with pytest.raises(ConfigError, match=f"names column '{name}'|writes self"):
            Template(text, "task.prompt", ["q"])
    assert Template("{% for n in range(3) %}{{ loop.index }}{% endfor %}", "k", ["q"]).text({"q": 1}) == "123"
    assert Template("{% set n = namespace(a=q) %}{{ n.a }}{{ dict(a=q).a }}", "k", ["q"]).text({"q": 1}) == "11"
    assert Template("{% block b %}x{% endblock %}{{ self.b() }}", "k", ["q"]).text({"q": 1}) == "xx"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ a.items }}", r"writes the function 'items': for the key of that name write \['items'\]"),
        ("{{ a.words | map('upper') }}", "no list yet: add '| list', or '| join'"),
        ("{{ raw }}", "writes bytes"),
    ],
)
def test_what_has_no_text_of_its_own_is_an_error(text: str, said: str) -> None:
    row = {"a": {"items": "eggs", "words": ["x"]}, "raw": b"\xff"}
    with pytest.raises(TypeError, match=said):
        Template(f"Buy: {text}", "task.prompt", list(row)).text(row)
    if "map" in text:
        assert Template(text, "task.target", list(row)).value(row) == ["X"]
    else:
        with pytest.raises(TypeError, match=said):
            Template(text, "task.target", list(row)).value(row)
    assert Template("Buy: {{ a['items'] }}", "task.prompt", list(row)).text(row) == "Buy: eggs"


def test_texts_of_python_are_collected() -> None:
    template, row = Template("{{ a.b }}{{ c }}{{ d }}", "k", ["a", "c", "d"]), {"a": {"b": None}, "c": "x", "d": 1}
    with python_texts() as kinds:
        template.text(row)
    assert kinds == {"null"}
    with python_texts() as kinds:
        template.text(row | {"a": {"b": "y"}, "c": ["x"]})
        assert kinds == {"a list or object"}
    template.text(row)
    assert kinds == {"a list or object"}


def test_a_template_that_makes_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "MOST_CHARACTERS", 99)
    row = {"q": "x"}
    assert len(Template("{{ q * 99 }}", "task.prompt", ["q"]).text(row)) == 99
    with pytest.raises(ValueError, match=r"task\.prompt gives 100 characters; the most is 99"):
        Template("{{ q * 100 }}", "task.prompt", ["q"]).text(row)


def test_a_template_that_cannot_be_compiled_names_its_key() -> None:
    with pytest.raises(ConfigError, match=r"task\.prompt: cannot be compiled: RecursionError"):
        Template("{{ " + "-" * 5000 + "1 }}", "task.prompt", [])
