"""Templates over rows."""

from __future__ import annotations

from typing import Any

import pytest

from hpcjobs.config import TaskConfig
from hpcjobs.config.layers import Layer
from hpcjobs.errors import ConfigError
from hpcjobs.tasks.chats import chat_or_text
from hpcjobs.tasks.prompts import Prompts, first_answer
from hpcjobs.tasks.seeds import sample_seed
from hpcjobs.tasks.template import Template


def prompts_of(columns: list[str], **task: Any) -> Prompts:
    from hpcjobs.config.problems import validate

    return Prompts(validate(Layer({"task": task})).task, columns)


def test_a_prompt_and_a_target() -> None:
    prompts = prompts_of(["q", "a"], prompt="Q: {{ q }}\n", target="{{ a }}")
    row = {"q": "<1 & 2>", "a": "x"}
    assert prompts.prompt(row) == "Q: <1 & 2>\n"
    assert prompts.target(row) == "x"
    assert prompts.columns == {"q"}


def test_messages_become_a_chat() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "{{ q }}{{ r }}"}]
    prompts = prompts_of(["q", "r"], messages=messages)
    assert prompts.prompt({"q": "a", "r": 2}) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a2"},
    ]
    assert prompts.columns == {"q", "r"}
    assert prompts.target({"q": "a"}) is None


@pytest.mark.parametrize(
    ("template", "row", "target"),
    [
        ("{{ a }}", {"a": ["x", 2]}, ["x", "2"]),
        (" {{ a }} \n", {"a": ["x"]}, ["x"]),
        ("{{ a.text }}", {"a": {"text": ["x", "y"]}}, ["x", "y"]),
        ("{{ a }}", {"a": 7}, "7"),
        ("{{ a }}", {"a": None}, None),
        ("{{ a }}", {"a": ""}, ""),
        ("{{ a }}.", {"a": ["x"]}, "['x']."),
        ("{{ a[0] }}{{ a[1] }}", {"a": ["x", "y"]}, "xy"),
        ("{{ a | upper }}", {"a": "x"}, "X"),
    ],
)
def test_a_lone_expression_keeps_its_list(template: str, row: dict[str, Any], target: object) -> None:
    assert prompts_of(["a"], prompt="p", target=template).target(row) == target


def test_columns_messages_or_prompt_are_used_where_the_task_has_none() -> None:
    chat = [{"role": "user", "content": "hi", "more": 1}]
    assert prompts_of(["messages", "prompt"]).prompt({"messages": chat}) == chat
    assert prompts_of(["prompt"]).prompt({"prompt": "hi"}) == "hi"
    assert prompts_of(["prompt"]).columns == {"prompt"}
    for wrong in (None, 7, [], [{"role": "user"}], ["hi"]):
        with pytest.raises(ValueError, match=r"neither a text nor a chat|has no role and content"):
            prompts_of(["prompt"]).prompt({"prompt": wrong})


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (
            {"prompt": "{{ qestion }}"},
            ["task.prompt", "'qestion'", "did you mean 'question'", "question, answer"],
        ),
        ({"prompt": "x", "target": "{{ anser }}"}, ["task.target", "'anser'", "did you mean 'answer'"]),
        ({"messages": [{"role": "user", "content": "{{ zzz }}"}]}, ["task.messages.0.content", "'zzz'"]),
        ({"prompt": "{{ question "}, ["task.prompt", "not a jinja2 template", "line 1"]),
        ({"prompt": "a\n{% if %}"}, ["task.prompt", "not a jinja2 template", "line 2"]),
        ({"prompt": "{{ question | nofilter }}"}, ["task.prompt", "nofilter"]),
        ({"prompt": "x", "target": "answer"}, ["task.target", "{{ answer }}"]),
        ({"prompt": "x", "messages": [{"role": "user", "content": "y"}]}, ["both set"]),
        ({}, ["nothing to ask", "task.messages", "question, answer"]),
        ({"messages": []}, ["nothing to ask"]),
    ],
)
def test_a_task_that_does_not_fit_the_columns(task: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        prompts_of(["question", "answer"], **task)
    for word in words:
        assert word in str(error.value)


def test_loops_and_sets_are_no_columns() -> None:
    text = "{% set n = 2 %}{% for c in choices %}{{ loop.index }}{{ c }}{{ n }} {% endfor %}{{ range(2) | list }}"
    assert prompts_of(["choices"], prompt=text).prompt({"choices": ["a", "b"]}) == "1a2 2b2 [0, 1]"


def test_what_a_row_lacks_is_an_error_of_that_row() -> None:
    prompts = prompts_of(["a"], prompt="{{ a.b }}", target="{{ a.b }}")
    for call in (prompts.prompt, prompts.target):
        with pytest.raises(Exception, match=r"no attribute 'b'|undefined"):
            call({"a": {"c": 1}})


def test_a_template_cannot_leave_its_sandbox() -> None:
    prompts = prompts_of(["a"], prompt="{{ a.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(Exception, match=r"unsafe|undefined"):
        prompts.prompt({"a": "x"})


def test_a_samples_seed_depends_on_run_and_id_alone() -> None:
    seeds = {sample_seed(run, name) for run in (0, 1) for name in ("a", "b", "1", "é", "\ud800")}
    assert len(seeds) == 10
    assert all(0 <= seed < 2**56 for seed in seeds)
    assert sample_seed(0, "a") == sample_seed(0, "a") == 26769400654387676
    assert sample_seed(1, "1a") != sample_seed(11, "a")


def test_no_task_is_needed_for_a_column() -> None:
    assert Prompts(TaskConfig(), ["prompt"]).prompt({"prompt": "x"}) == "x"


CHOICE = {"type": "choice", "prompt": "{{ q }}", "choices": "{{ options }}", "target": "{{ gold }}"}


def test_the_options_of_a_row_become_pairs() -> None:
    row = {"index": 3, "id": "r", "q": "Which?", "options": ["one", "two"], "gold": 1}
    request = prompts_of(list(row), **CHOICE).request(row, 7)
    assert (request.index, request.id, request.task, request.options) == (3, "r", "choice", ("one", "two"))
    assert [(pair.context, pair.continuation) for pair in request.pairs] == [("Which?", " one"), ("Which?", " two")]
    assert request.seed == sample_seed(7, "r")
    bare = prompts_of(list(row), **CHOICE | {"delimiter": "", "choices": ["A", "{{ options[1] }}"]})
    assert [pair.continuation for pair in bare.request(row, 0).pairs] == ["A", "two"]
    chat = CHOICE | {"prompt": None, "messages": [{"role": "user", "content": "{{ q }}"}]}
    assert [pair.continuation for pair in prompts_of(list(row), **chat).request(row, 0).pairs] == ["one", "two"]


@pytest.mark.parametrize(
    ("options", "gold", "number"),
    [
        (["x", "y"], 0, 0), (["x", "y"], "y", 1), (["x", "y"], "B", 1), (["x", "y"], "b", 1), (["x", "y"], "1", 1),
        (["3", "1", "2"], "1", 1), (["3", "1", "2"], 1, 1), (["b", "a"], "a", 1), (["b", "a"], "A", 0),
        (["x", "y"], ["y", 0], [1, 0]), (["x", "y"], None, None), (["x"], " A ", 0),
    ],
)  # fmt: skip
def test_a_target_is_an_option_its_letter_or_its_number(options: list[str], gold: Any, number: Any) -> None:
    row = {"q": "?", "options": options, "gold": gold}
    assert prompts_of(list(row), **CHOICE).target(row) == number


@pytest.mark.parametrize("gold", [2, -1, "z", "C", "2", "", "both", True])
def test_a_target_that_is_no_option(gold: Any) -> None:
    row = {"q": "?", "options": ["one", "two"], "gold": gold}
    with pytest.raises(ValueError, match="none of the 2 options"):
        prompts_of(list(row), **CHOICE).target(row)


def test_options_that_are_no_list() -> None:
    row = {"index": 0, "id": "r", "q": "?", "options": "one", "gold": 0}
    with pytest.raises(ValueError, match=r"task.choices .*gives .one., not a list"):
        prompts_of(list(row), **CHOICE).request(row, 0)
    with pytest.raises(ValueError, match=r"not a list of options: if it is JSON, set data\.types: \{options: json\}"):
        prompts_of(list(row), **CHOICE).request(row | {"options": '["one"]'}, 0)


@pytest.mark.parametrize("value", [["x", None], [None], [], [["x"]], [{"k": 1}], {"k": 1}, b"x", [b"x"]])
def test_what_no_answer_can_equal_is_no_target_and_no_option(value: Any) -> None:
    said = r"\(column 'gold'\) gives .*(targets|options)"
    row = {"index": 0, "id": "r", "q": "?", "options": ["x", "None", "[]"], "gold": value}
    for target in (prompts_of(list(row), prompt="{{ q }}", target="{{ gold }}"), prompts_of(list(row), **CHOICE)):
        with pytest.raises((ValueError, TypeError), match=said if value != b"x" else "bytes"):
            target.target(row)
    with pytest.raises((ValueError, TypeError), match=said if value != b"x" else "bytes"):
        prompts_of(list(row), **CHOICE | {"choices": "{{ gold }}", "target": None}).request(row, 0)


def test_a_chat_is_no_text_for_perplexity() -> None:
    row = {"index": 0, "id": "r", "text": [{"role": "user", "content": "x"}]}
    with pytest.raises(ValueError, match=r"task\.type perplexity scores a text, and column 'text' has a chat"):
        prompts_of(list(row), type="perplexity").request(row, 0)


def test_the_text_of_a_perplexity_task_is_its_own_target() -> None:
    row = {"index": 0, "id": "r", "text": "All of it."}
    prompts = prompts_of(list(row), type="perplexity")
    assert (prompts.request(row, 0).prompt, prompts.request(row, 0).task) == ("All of it.", "perplexity")
    assert prompts.target(row) == "All of it."
    assert prompts_of(list(row), type="perplexity", prompt="{{ text }}!").target(row) == "All of it.!"


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"type": "choice", "prompt": "{{ q }}"}, "task.choices is not set"),
        ({"prompt": "{{ q }}", "choices": ["A"]}, "task.choices is for task.type choice"),
        ({"type": "perplexity", "messages": [{"role": "user", "content": "x"}]}, "scores a text"),
        ({"type": "perplexity", "prompt": "{{ q }}", "few_shot": {"k": 1}}, "no meaning"),
        ({"type": "perplexity", "prompt": "{{ q }}", "description": "x"}, "task.description has no meaning"),
        ({"type": "choice", "prompt": "{{ q }}", "choices": ["A"], "repeats": 2}, "several answers"),
        ({"type": "choice", "prompt": "{{ q }}", "choices": ["{{ z }}"]}, "task.choices.0"),
        ({"prompt": "{{ q }}", "description": "{{ z }}"}, "task.description"),
        ({"type": "perplexity"}, "'text' or 'prompt'"),
    ],
)
def test_keys_of_a_task_that_contradict_each_other(task: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        prompts_of(["q"], **task)
    assert words in str(error.value)


def test_several_answers_to_one_prompt() -> None:
    row = {"index": 0, "id": "r", "q": "?"}
    assert prompts_of(list(row), prompt="{{ q }}", repeats=5).request(row, 0).repeats == 5


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{{ a }}", 5), ("{{- a }}", 5), ("{{ a -}}", 5), ("{{- a -}}", 5), (" {{-a-}}\n", 5), ("{{ -a }}", -5),
        ("{{ words|map('lower') }}", ["x", "y"]), ("{{ words|unique }}", ["X", "Y"]), ("{{ pair.values() }}", [1, 2]),
        ("{{ pair.keys()|list }}", ["k", "l"]), ("{{ '}}' }}", "}}"), ("{{ a }}{{ a }}", "55"), ("{{ a }}.", "5."),
        ("{% if a %}{{ a }}{% endif %}", "5"), ("{{ words }}", ["X", "Y"]), ("{{ 'x' if a > 3 else 'y' }}", "x"),
    ],
)  # fmt: skip
def test_a_template_gives_what_jinja_reads(template: str, value: Any) -> None:
    row = {"a": 5, "words": ["X", "Y"], "pair": {"k": 1, "l": 2}}
    assert Template(template, "task.target", list(row)).value(row) == value


def test_text_parts_are_joined_and_other_parts_refused_by_name() -> None:
    parts = [{"type": "text", "text": "Reverse: "}, {"type": "text", "text": "uzaq"}]
    joined = [{"role": "user", "content": "Reverse: uzaq"}]
    assert chat_or_text([{"role": "user", "content": parts}], "messages") == joined
    image = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": "x"}}]
    with pytest.raises(ValueError, match=r"turn 0 of the chat has a part of type 'image_url'"):
        chat_or_text([{"role": "user", "content": image}], "messages")


def test_what_else_a_turn_has_is_kept_for_the_template() -> None:
    chat = [
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "g", "arguments": {}}}]},
        {"role": "tool", "content": "42", "name": "f", "tool_call_id": "1"},
    ]
    assert chat_or_text(chat, "messages") == chat


@pytest.mark.parametrize(
    "turn", [{"role": "user"}, {"content": "x"}, {"role": 1, "content": "x"}, {"role": "u", "content": 5}]
)
def test_a_turn_that_is_none_is_refused(turn: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="turn 0 of the chat has"):
        chat_or_text([turn], "messages")


def test_of_several_correct_answers_the_first_is_shown() -> None:
    targets: list[Any] = [["x", "y"], [3, 1], [], "x", 0, None]
    assert [first_answer(target) for target in targets] == ["x", 3, None, "x", 0, None]
