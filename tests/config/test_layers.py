"""Layers of config: YAML 1.2, places, precedence."""

from __future__ import annotations

import copy
import math
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcjobs.config.layers import Layer, dotted_layer, file_layer, merge_layers, set_layer, text_layer
from hpcjobs.config.yaml import dump_yaml, parse_yaml
from hpcjobs.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1:30:00", "1:30:00"), ("12:30", "12:30"), ("1-0", "1-0"), ("2026-01-31", "2026-01-31"),
        ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("y", "y"),
        ("true", True), ("True", True), ("FALSE", False), ("tRUE", "tRUE"),
        ("7", 7), ("-7", -7), ("+7", 7), ("010", 10), ("0", 0), ("1_000", "1_000"), ("0x1f", "0x1f"),
        ("1e-4", 1e-4), ("1E5", 1e5), ("-1.5e+3", -1500.0), ("1.", 1.0), (".5", 0.5), ("1.2.3", "1.2.3"), (".", "."),
        ("-.inf", -math.inf), (".Inf", math.inf), ("e5", "e5"), ("1e", "1e"), ("7b", "7b"),
        ("~", None), ("null", None), ("", None), ("'7'", "7"), ("[1, a]", [1, "a"]), ("{a: no}", {"a": "no"}),
    ],
)  # fmt: skip
def test_numbers_and_booleans_are_those_of_yaml_1_2(text: str, value: object) -> None:
    parsed = parse_yaml(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_nan() -> None:
    assert math.isnan(parse_yaml(".nan"))


@pytest.mark.parametrize(
    "text",
    [
        "1e4",
        "1:30:00",
        "yes",
        "null",
        "010",
        "1.5",
        "a: b",
        "# no",
        "é\u2028\x85\t",
        "\x85",
        "a\r\nb",
        "\ufeff",
        "",
        " x ",
    ],
)
def test_a_text_stays_a_text_through_dump_and_parse(text: str) -> None:
    assert parse_yaml(dump_yaml({"a": text})) == {"a": text}


@settings(deadline=None)
@given(st.text(alphabet="0123456789.:eE+-_xonyestrufalINF~", max_size=8))
def test_no_text_is_dumped_as_another_value(text: str) -> None:
    assert parse_yaml(dump_yaml([text])) == [text]


def test_a_file_knows_where_each_key_stands(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("# first\nmodel:\n  name: tiny\ntask:\n  messages:\n    - {role: user}\n    - role: system\n")
    layer = file_layer(path)
    assert layer.values == {
        "model": {"name": "tiny"},
        "task": {"messages": [{"role": "user"}, {"role": "system"}]},
    }
    assert layer.places["model.name"] == f"{path}:3"
    assert layer.places["task.messages.0.role"] == f"{path}:6"
    assert layer.places["task.messages.1.role"] == f"{path}:7"


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n"])
def test_an_empty_file_is_an_empty_layer(text: str) -> None:
    assert not text_layer(text, "c.yaml").places


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: [1\nc: 2\n", ["c.yaml:3", "not YAML"]),
        ("a:\n\tb: 1\n", ["c.yaml:2", "not YAML", "'\\t'"]),
        ("a:\n  b: 1\n  b: 2\n", ["c.yaml:3", "'a.b' stands twice", "c.yaml:2"]),
        ("- a\n", ["c.yaml:1", "mapping"]),
        ("just words", ["c.yaml:1", "mapping"]),
        ("task:\n  prompt: {{ question }}\n", ["c.yaml:2", "quotes", "{{"]),
        ("a: !!python/object:os.system x\n", ["c.yaml:1", "not YAML"]),
        ("a: 1\n---\nb: 2\n", ["c.yaml:2", "not YAML"]),
    ],
)
def test_what_is_no_config_is_said_with_its_line(text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        text_layer(text, "c.yaml")
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml does not exist"):
        file_layer(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        file_layer(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        file_layer(tmp_path / "latin.yaml")


def test_set_reads_values_as_yaml() -> None:
    layer = set_layer(["a.b=1e-3", "a.c.d=[x, 2]", "a.e=", "a.f=x=y", "a.g=no"])
    assert layer.values == {"a": {"b": 1e-3, "c": {"d": ["x", 2]}, "e": None, "f": "x=y", "g": "no"}}
    assert layer.places["a.c.d"] == "--set a.c.d"


@pytest.mark.parametrize("word", ["a", "a=1", "a.b", ".b=1", "a.=1", "a..b=1", "=1", "", "a b.c=1", "a.b\n=1"])
def test_set_says_how_it_is_written(word: str) -> None:
    with pytest.raises(ConfigError, match=r"section\.key=value"):
        set_layer([word])


def test_set_with_a_template_without_quotes_says_the_cure() -> None:
    for text, quoted in (
        ("{{ question }}", "'task.prompt=\"{{ question }}\"'"),
        ("Q: {{ q }}", "'task.prompt=\"Q: {{ q }}\"'"),
        ("{{ q }} of", "'task.prompt=\"{{ q }} of\"'"),
        ("@q", "'task.prompt=\"@q\"'"),
        ('{{ q["a"] }}', shlex.quote("task.prompt='{{ q[\"a\"] }}'")),
    ):
        with pytest.raises(ConfigError) as error:
            set_layer([f"task.prompt={text}"])
        assert str(error.value).endswith(f"a text needs quotes: --set {quoted}")
        word = shlex.split(quoted)[0]
        assert set_layer([word]).values == {"task": {"prompt": text}}, "what it says to type is what was meant"
    with pytest.raises(ConfigError, match=r"not YAML: [^;]*$"):
        set_layer(["task.metrics=[a"])


def test_a_flag_through_a_value() -> None:
    with pytest.raises(ConfigError, match=r"--x: 'a\.b\.c' goes through a value"):
        dotted_layer({"a.b": 1, "a.b.c": 2}, "--x")


def test_later_layers_win_and_sections_merge() -> None:
    low = text_layer("a: {x: 1, y: 1, l: [1, 2], e: {k: v}}\n", "low")
    high = text_layer("a: {y: 2, l: [3], e: {m: w}}\nb: {z: 3}\n", "high")
    merged = merge_layers([low, high])
    assert merged.values == {"a": {"x": 1, "y": 2, "l": [3], "e": {"k": "v", "m": "w"}}, "b": {"z": 3}}
    assert merged.places["a.x"] == "low:1"
    assert merged.places["a.y"] == "high:1"


def test_none_over_a_value_takes_it_back() -> None:
    merged = merge_layers([text_layer("a: {x: 1}", "low"), set_layer(["a.x=null"])])
    assert merged.values == {"a": {"x": None}}


def test_a_list_that_is_replaced_leaves_no_places_behind() -> None:
    low = text_layer("a:\n  l:\n    - {k: 1}\n    - {k: 2}\n", "low")
    merged = merge_layers([low, set_layer(["a.l=[]"])])
    assert [key for key in merged.places if key.startswith("a.l.")] == []


@pytest.mark.parametrize(
    ("low", "high", "stay", "gone"),
    [
        ("task: {prompt: p}", "task.messages=[]", "messages", "prompt"),
        ("task: {messages: [m]}", "task.prompt=p", "prompt", "messages"),
        ("cluster: {gpus: 8}", "cluster.gpus_per_node=4", "gpus_per_node", "gpus"),
        ("cluster: {gpus_per_node: 4}", "cluster.gpus=0", "gpus", "gpus_per_node"),
    ],
)
def test_of_an_either_or_the_higher_layer_is_meant(low: str, high: str, stay: str, gone: str) -> None:
    section = low.partition(":")[0]
    merged = merge_layers([text_layer(low, "low"), set_layer([high])])
    assert set(merged.values[section]) == {stay}
    assert f"{section}.{gone}" not in merged.places


def test_both_of_an_either_or_in_one_layer_stay_for_the_check() -> None:
    merged = merge_layers([text_layer("cluster: {gpus: 8, gpus_per_node: 4}", "low")])
    assert set(merged.values["cluster"]) == {"gpus", "gpus_per_node"}


def test_a_value_where_a_section_belongs_is_not_lost() -> None:
    merged = merge_layers([text_layer("model: tiny\n", "low"), set_layer(["model.engine=dummy"])])
    assert merged.values == {"model": "tiny"}


def test_keys_over_a_value_take_its_place_so_that_they_are_refused() -> None:
    merged = merge_layers([text_layer("task: {target: a}\n", "low"), set_layer(["task.target.x=1"])])
    assert merged.values == {"task": {"target": {"x": 1}}}
    assert merged.places["task.target.x"] == "--set task.target.x"
    assert "task.target" not in merged.places


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        ("sweep: a.csv", "sweep: {lr: [1]}", "low:1: sweep is the file 'a.csv', and high:1 sets keys below it"),
        ("sweep: {lr: [1]}", "sweep: a.csv", "high:1: sweep is the file 'a.csv', and low:1 sets keys below it"),
    ],
)
def test_points_of_a_file_and_of_lists_are_not_taken_for_each_other(low: str, high: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        merge_layers([text_layer(low, "low"), text_layer(high, "high")])
    assert said in str(error.value)
    assert merge_layers([text_layer("sweep: a", "low"), text_layer("sweep: b", "high")]).values == {"sweep": "b"}
    axes = [text_layer("sweep: {a: [1]}", "low"), text_layer("sweep: {b: [2]}", "high")]
    assert merge_layers(axes).values == {"sweep": {"a": [1], "b": [2]}}


_KEYS = st.sampled_from("abc")
_LEAVES = st.integers(0, 9) | st.lists(st.integers(0, 9), max_size=2)
_VALUES: st.SearchStrategy[Any] = _LEAVES | st.dictionaries(
    _KEYS, _LEAVES | st.dictionaries(_KEYS, _LEAVES, max_size=2), max_size=2
)
_few = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@_few
@given(st.lists(st.dictionaries(_KEYS, _VALUES, max_size=3), max_size=4))
def test_merging_changes_none_of_its_layers(values: list[dict[str, Any]]) -> None:
    layers = [Layer(value) for value in values]
    before = copy.deepcopy(values)
    merged = merge_layers(layers)
    for value in merged.values.values():
        if isinstance(value, dict):
            value["mine"] = 1
    assert [layer.values for layer in layers] == before


@_few
@given(st.dictionaries(_KEYS, _VALUES, max_size=3))
def test_merging_twice_is_merging_once(values: dict[str, Any]) -> None:
    assert merge_layers([Layer(values), Layer(values)]).values == merge_layers([Layer(values)]).values
