from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcjobs.errors import DataError
from hpcjobs.tasks import jsonl
from hpcjobs.tasks.jsonl import read_jsonl

NAMES = count()
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=5)
)
VALUES = SCALARS | st.lists(st.integers(0, 5), max_size=3) | st.dictionaries(st.sampled_from("xy"), st.integers(0, 5))
DATES = st.sampled_from(["2020-01-01", "2020-01-01T10:00:00", "12:30", "1", "true", ""])


def by_python(path: Path) -> pa.Table | str:
    """The table of all rows at once, or what is wrong with them."""
    try:
        return jsonl._by_python(path.read_bytes(), path, 0, 0)
    except DataError as error:
        return str(error)


def agree(path: Path) -> None:
    expected = by_python(path)
    if isinstance(expected, str):
        with pytest.raises(DataError) as told:
            read_jsonl(path)
        assert str(told.value) == expected
    else:
        found = read_jsonl(path)
        assert found.schema.equals(expected.schema, check_metadata=True)
        assert found.combine_chunks().equals(expected.combine_chunks())


def write(path: Path, rows: list[Any], end: str = "\n") -> Path:
    path.write_text(end.join(json.dumps(row) for row in rows) + end)
    return path


@settings(max_examples=300)
@given(
    rows=st.lists(st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3), min_size=1, max_size=12)
    | st.lists(st.fixed_dictionaries({"a": DATES, "b": st.integers(0, 9)}), min_size=1, max_size=12),
    block=st.integers(1, 200),
)
def test_any_rows_in_any_blocks_are_those_of_python(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], block: int
) -> None:
    path = write(tmp_path_factory.getbasetemp() / f"rows-{next(NAMES)}.jsonl", rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "_BLOCK", block)
        agree(path)


GOOD = '{"q":"a","n":1}\n' * 4
ODD = {
    "no newline at the end": GOOD + '{"q":"b","n":2}',
    "an empty line": GOOD + "\n" + GOOD,
    "spaces": GOOD + '  {"q":"b","n":2}  \n' + GOOD,
    "carriage returns": GOOD.replace("\n", "\r\n"),
    "two objects on a line": GOOD + GOOD.replace("\n", "", 1),
    "one object on two lines": GOOD + '{"q":"b",\n"n":2}\n',
    "not JSON": GOOD + '{"q":\n' + GOOD,
    "a list": GOOD + "[1]\n",
    "a float among integers": GOOD + '{"q":"a","n":1.5}\n',
    "a whole float among integers": GOOD + '{"q":"a","n":1.0}\n',
    "a text among integers": GOOD + '{"q":"a","n":"1"}\n',
    "a new column": GOOD + '{"q":"a","n":1,"more":[1]}\n' + GOOD,
    "a key twice": GOOD + '{"q":"a","n":1,"n":2}\n',
    "a lone surrogate": GOOD + '{"q":"\\ud800","n":1}\n',
    "nulls first": '{"q":null}\n' * 9 + '{"q":"a"}\n',
    "a date first": '{"q":"2020-01-01"}\n' * 9 + '{"q":"a"}\n',
    "characters": '{"q":"né 😀"}\n' * 9,
    "nothing": "",
}


@pytest.mark.parametrize("block", [20, 60, 1 << 20])
@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
def test_what_arrow_reads_otherwise_is_read_by_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, block: int
) -> None:
    monkeypatch.setattr(jsonl, "_BLOCK", block)
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    agree(path)


def test_bytes_that_are_no_text_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "_BLOCK", 40)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD.encode() + b'{"q":"\xff","n":1}\n')
    agree(path)


def test_all_but_the_first_block_are_read_by_arrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "_BLOCK", 1000)
    rows = [{"id": f"r{n}", "day": "2020-01-01", "n": n, "list": [n], "deep": {"x": n / 7}} for n in range(200)]
    path, blocks = write(tmp_path / "rows.jsonl", rows), list[int]()
    by_python = jsonl._by_python

    def counted(block: bytes, where: Path, line: int, row: int) -> pa.Table:
        blocks.append(len(block))
        return by_python(block, where, line, row)

    monkeypatch.setattr(jsonl, "_by_python", counted)
    assert read_jsonl(path).to_pylist() == rows
    assert len(blocks) == 1
