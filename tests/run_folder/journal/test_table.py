from __future__ import annotations

import logging
import re
from itertools import count
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcjobs.errors import MergeError
from hpcjobs.run_folder.journal import table as columns
from hpcjobs.run_folder.journal.journal import parse_line, read_journal
from hpcjobs.run_folder.journal.record import Record
from hpcjobs.run_folder.journal.table import journal_schema, read_columns, storable, table_of
from tests.run_folder.journal.test_record import RECORDS
from tests.runs import record_of

NAMES = count()
SCHEMA = journal_schema(
    pa.schema(
        [
            ("scores", pa.struct([("exact_match", pa.float64()), ("contains", pa.float64())])),
            ("statistics", pa.struct([("bleu", pa.list_(pa.float64())), ("label", pa.string())])),
        ]
    )
)
RICH = record_of(
    7, 3, completion='né "\\/ \t\n\0 😀', completions=["a", "😀"], choice_logprobs=[-1.5, None],
    choice_greedy=[True, False], choice_tokens=[1, 2], scores={"exact_match": None, "contains": 0.1},
    statistics={"bleu": [1.0, None, 2.5], "label": "yes"},
)  # fmt: skip


def table_in(path: Path, schema: pa.Schema = SCHEMA) -> pa.Table:
    return pa.concat_tables([schema.empty_table(), *read_columns(path, schema)]).combine_chunks()


def by_python(path: Path, schema: pa.Schema = SCHEMA) -> pa.Table:
    return table_of(list(read_journal(path)), schema).combine_chunks()


def new_file(factory: pytest.TempPathFactory, content: bytes) -> Path:
    path = factory.getbasetemp() / f"columns-{next(NAMES)}.jsonl"
    path.write_bytes(content)
    return path


@given(records=st.lists(RECORDS, max_size=5))
def test_any_records_come_as_python_reads_them(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record]
) -> None:
    path = new_file(tmp_path_factory, b"".join(record.line() for record in records))
    assert table_in(path).equals(by_python(path))


def test_arrow_reads_what_ranks_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's parser is gone, and nothing is amiss."""
    records = [RICH, record_of(1, 0), record_of(2, 0, error=None), RICH]
    path = tmp_path / "a-0.jsonl"
    path.write_bytes(b"".join(record.line() for record in records))
    expected = by_python(path)
    monkeypatch.delattr(columns, "parse_line")
    assert table_in(path).equals(expected)
    assert table_in(path).column("completion")[0].as_py() == RICH.completion
    assert table_in(path).column("choice_logprobs").to_pylist() == [[-1.5, None], None, None, [-1.5, None]]


LINE = record_of(1, 0).line()
# What Arrow's parser takes for records, or drops, though it is none or another one to `Record.parse`.
TRAPS = {
    "two objects on a line, one on two": LINE[:-1] + LINE + LINE[:-1].replace(b',"chunk"', b',\n"chunk"') + b"\n",
    "an empty line and two on one": b"\n" + LINE[:-1] + LINE,
    "no id": LINE.replace(b'"id":"row-1",', b""),
    "a null": LINE.replace(b'"row-1"', b"null"),
    "a broken character": LINE.replace(b"row-1", b"row\xff"),
    "a key twice": LINE.replace(b'"chunk":0', b'"chunk":5,"chunk":0'),
    "half an error": LINE.replace(b'"error":null', b'"error":{"type":"x"}'),
    "a float": LINE.replace(b'"chunk":0', b'"chunk":0.0'),
    "a truth": LINE.replace(b'"chunk":0', b'"chunk":true'),
    "an unknown field": LINE.replace(b'"chunk":0', b'"chunk":0,"chink":1'),
    "no scores": LINE.replace(b'"scores":{"exact_match":1.0,"contains":1.0},', b""),
    "another score": LINE.replace(b'"contains":1.0', b'"f1":0.5'),
    "carriage returns": LINE.replace(b"\n", b"\r\n"),
    "spaces": b" " + LINE,
    "a list": b"[]\n",
    "nothing": b"\n",
    "zeros": b"\0\0\0\n",
    "too large": LINE.replace(b'"chunk":0', b'"chunk":99999999999999999999'),
    "words for numbers": LINE.replace(b'"scores":{"exact_match":1.0', b'"scores":{"exact_match":"x"'),
}


@pytest.mark.parametrize("trap", TRAPS.values(), ids=TRAPS)
def test_nothing_is_taken_for_a_record_that_is_none(tmp_path: Path, trap: bytes) -> None:
    path = tmp_path / "a-0.jsonl"
    path.write_bytes(RICH.line() * 3 + trap + RICH.line())
    agree(path)


def agree(path: Path) -> None:
    """Both ways give the same, or the same error; what Python reads and no column holds is an error too."""
    expected: pa.Table | str = f"{path}: broken record at offset"
    try:
        expected = by_python(path)
    except MergeError as error:
        expected = str(error)
    except (pa.ArrowException, OverflowError, TypeError):
        pass
    if isinstance(expected, str):
        with pytest.raises(MergeError, match=re.escape(expected)):
            table_in(path)
    else:
        assert table_in(path).equals(expected)


@given(place=st.integers(0, len(RICH.line()) - 1), value=st.integers(0, 255))
def test_any_byte_that_is_another_is_seen_as_python_sees_it(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int
) -> None:
    line = bytearray(RICH.line())
    line[place] = value
    agree(new_file(tmp_path_factory, LINE + bytes(line) + LINE))


def test_one_odd_line_among_many_is_all_that_python_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [record_of(n, 0) for n in range(5000)]
    records[2500] = record_of(2500, 0, completion="a\ud800")
    path = tmp_path / "a-0.jsonl"
    path.write_bytes(b"".join(record.line() for record in records))
    found = table_in(path)
    assert found.equals(table_of(records, SCHEMA).combine_chunks())
    assert found.column("completion")[2500].as_py() == "a?"
    parsed = list[int]()

    def counted(path: Path, offset: int, line: bytes) -> Record:
        parsed.append(offset)
        return parse_line(path, offset, line)

    monkeypatch.setattr(columns, "parse_line", counted)
    assert table_in(path).equals(found)
    assert 0 < len(parsed) < 500


def test_blocks_and_a_torn_tail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(columns, "_BLOCK", 1000)
    caplog.set_level(logging.WARNING)
    records = [record_of(n, 0, completion="long " * (n * 50 % 700)) for n in range(50)]
    content, path = b"".join(record.line() for record in records), tmp_path / "a-0.jsonl"
    path.write_bytes(content[:-5])
    assert table_in(path).equals(table_of(records[:-1], SCHEMA).combine_chunks())
    torn, offset = len(records[-1].line()) - 5, len(content) - len(records[-1].line())
    assert caplog.messages == [f"{path}: dropped an unterminated last line of {torn} bytes at offset {offset}"]


def test_a_journal_without_a_line_has_no_table(tmp_path: Path) -> None:
    path = tmp_path / "a-0.jsonl"
    path.touch()
    assert list(read_columns(path, SCHEMA)) == []


def test_a_run_without_metrics_has_no_scores(tmp_path: Path) -> None:
    schema = journal_schema(pa.schema([("index", pa.int64())]))
    path = tmp_path / "a-0.jsonl"
    for scores in ({}, {"f1": 1.0}):
        path.write_bytes(record_of(0, 0, scores=scores).line())
        assert table_in(path, schema).column("scores").to_pylist() == [{}]


def test_storable_reaches_inside() -> None:
    assert storable({"a": ["\ud800", ("b\udfff", 1, None)]}) == {"a": ["?", ["b?", 1, None]]}


def test_fields_that_nobody_asks_for_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a-0.jsonl"
    path.write_bytes(RICH.line())
    monkeypatch.delattr(columns, "parse_line")
    found = pa.concat_tables(read_columns(path, journal_schema(pa.schema([])), others="ignore"))
    assert found.column("scores").to_pylist() == [{}]
    assert found.column("index").to_pylist() == [RICH.index]
