from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcjobs.requests import Completion, MetricError, SampleError
from hpcjobs.run_folder.journal.record import Record
from tests.runs import record_of

# All of Unicode, lone surrogates too, and often what line-wise readers split or stop at.
STRANGE = st.sampled_from("\n\r\0\x0b\x1c\u0085\u2028\ud800\udfff")
TEXT = st.text(st.one_of(st.characters(exclude_categories=()), STRANGE))
COUNT = st.integers(0, 2**62)
RECORDS = st.builds(
    Record,
    index=COUNT, id=TEXT, chunk=COUNT, generation=COUNT, completion=TEXT, finish_reason=TEXT, prompt_tokens=COUNT,
    completion_tokens=COUNT, rank=COUNT, attempt=TEXT, seconds=st.floats(0, 1e9), started_at=st.floats(0, 1e10),
    scores=st.dictionaries(TEXT, st.none() | st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    error=st.none() | st.builds(SampleError, TEXT, TEXT),
    metric_errors=st.lists(st.builds(MetricError, TEXT, TEXT, TEXT), max_size=2).map(tuple),
)  # fmt: skip


@given(RECORDS)
def test_a_record_comes_back_exactly_from_one_line(record: Record) -> None:
    line = record.line()
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert Record.parse(line[:-1]) == record


def test_the_line_has_the_fields_of_the_format() -> None:
    values = json.loads(record_of(3, 1, error=SampleError("ValueError", "bad")).line())
    assert values == {
        "index": 3, "id": "row-3", "chunk": 1, "generation": 0, "completion": "answer 3", "finish_reason": "stop",
        "prompt_tokens": 2, "completion_tokens": 1, "scores": {"exact_match": 1.0, "contains": 1.0},
        "error": {"type": "ValueError", "message": "bad"}, "rank": 0, "attempt": "a", "seconds": 0.5, "started_at": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_is_none(value: float) -> None:
    record = record_of(0, 0, scores={"f1": value, "contains": 0.5})
    assert Record.parse(record.line()).scores == {"f1": None, "contains": 0.5}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"index": "3"}, "index is '3'"),
        ({"index": True}, "index is True"),
        ({"index": 1.0}, "index is 1.0"),
        ({"completion": None}, "completion is None"),
        ({"scores": [1]}, "scores is"),
        ({"seconds": "1"}, "seconds is"),
        ({"error": {"type": "a"}}, "message"),
        ({"error": "text"}, "SampleError|mapping"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_line_of_another_shape_is_refused(change: dict[str, Any], words: str) -> None:
    values = json.loads(record_of(3, 1).line()) | change
    with pytest.raises(ValueError, match=words):
        Record.parse(json.dumps(values).encode())


@pytest.mark.parametrize("line", [b"", b"[]", b"3", b"null", b"{", b'{"index":1}', b"\xff\xfe", b"\0"])
def test_what_is_no_record_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Record.parse(line)


def test_a_long_error_message_is_cut() -> None:
    error = SampleError.of(KeyError("x" * 5000))
    assert (error.type, len(error.message)) == ("KeyError", 2000)
    failed = Completion.failed(7, error, 1.0, 2.0)
    assert (failed.index, failed.text, failed.finish_reason, failed.error) == (7, "", "error", error)
