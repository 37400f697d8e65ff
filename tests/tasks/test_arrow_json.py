"""What Arrow reads of JSON is what Python reads, or Python is asked: one kind of difference at a time."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from hpcjobs.tasks.arrow_json import reads_as_python


@pytest.mark.parametrize(
    ("lines", "surely"),
    [
        ([{"a": 1, "b": "x"}], True),
        ([{"a": {"b": 1, "c": "x"}}], True),
        ([{"a": {"b": 1}}, {"a": {"b": None}}], False),
        ([{"a": {"b": 1, "c": None}}, {"a": {"b": 2, "c": 3}}], False),
        ([{"a": [{"b": 1}, {"b": None}]}], False),
        ([{"a": {"b": {"c": None, "d": 1}, "e": 1}}], False),
    ],
)
def test_a_null_of_a_nested_object_may_be_a_key_that_is_not_there(lines: list[dict[str, object]], surely: bool) -> None:
    block = "".join(json.dumps(line) + "\n" for line in lines).encode()
    assert reads_as_python(block, pa.Table.from_pylist(lines)) is surely


@pytest.mark.parametrize(
    ("block", "rows", "surely"),
    [
        ('{"x": 12}\n{"x": 1.5}', [{"x": 12.0}, {"x": 1.5}], False),
        ('{"x": 12.0}\n{"x": 1.5}', [{"x": 12.0}, {"x": 1.5}], True),
        ('{"x": -12}', [{"x": -12.0}], False), ('{"x": 12e0}', [{"x": 12.0}], True),
        ('{"x": 1.5, "n": 3}', [{"x": 1.5, "n": 3}], True),
        ('{"x": [1.5]}', [{"x": [1.5]}], True), ('{"x": [1.5, 2.0]}', [{"x": [1.5, 2.0]}], False),
        ('{"a": {"x": 2}}', [{"a": {"x": 2.0}}], False), ('{"a": {"x": 2.0}}', [{"a": {"x": 2.0}}], True),
        ('{"a": [{"x": 2}]}', [{"a": [{"x": 2.0}]}], False),
        ('{"\\u0078": 2.0}', [{"x": 2.0}], False), ('{"x": null}', [{"x": None}], True),
    ],
)  # fmt: skip
def test_a_whole_number_among_fractions_may_be_an_integer(block: str, rows: list[object], surely: bool) -> None:
    assert reads_as_python(block.encode() + b"\n", pa.Table.from_pylist(rows)) is surely


@pytest.mark.parametrize(
    ("block", "surely"),
    [
        ('{"a": {"b": 1, "c": 2}}', True), ('{"a": {"c": 2, "b": 1}}', False),
        ('{"a": {"b": 1, "c": 2}}\n{"a": {"c": 2, "b": 1}}', False),
        ('{"a": {"b": 1, "c": 2}}\n{"a": {"b": 1, "c": 2}}', True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("listed", [False, True])
def test_keys_in_another_order_are_read_by_python(block: str, surely: bool, listed: bool) -> None:
    if listed:
        block = block.replace('{"a": ', '{"a": [').replace("}}", "}]}")
    row = {"a": [{"b": 1, "c": 2}] if listed else {"b": 1, "c": 2}}
    table = pa.Table.from_pylist([row] * len(block.splitlines()))
    assert reads_as_python(block.encode() + b"\n", table) is surely


def test_keys_that_stand_for_several_places_or_are_no_plain_words_are_read_by_python() -> None:
    for row in ({"a": {"b": 1}, "c": {"b": 2}}, {"a": {"a": 1}}, {"a": {'b"c': 1}}, {"a": {"b:": 1}}):
        block = json.dumps(row).encode() + b"\n"
        assert not reads_as_python(block, pa.Table.from_pylist([row])), row


def test_half_a_surrogate_pair_is_no_text() -> None:
    def table(text: bytes) -> pa.Table:
        buffers = [None, pa.array([0, len(text)], pa.int32()).buffers()[1], pa.py_buffer(text)]
        return pa.table({"a": pa.StringArray.from_buffers(1, buffers[1], buffers[2])})

    assert reads_as_python(b'{"a": "\\ud83d\\ude00"}\n', table("\U0001f600".encode()))
    assert not reads_as_python(b'{"a": "\\ud83d"}\n', table(b"\xed\xa0\xbd"))
