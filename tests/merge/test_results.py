from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcjobs.config import TaskConfig
from hpcjobs.errors import DiskFullError
from hpcjobs.merge.results import ResultsWriter, rows_of, schema_of
from hpcjobs.metrics import find_metrics
from hpcjobs.requests import MetricError, SampleError
from hpcjobs.run_folder.journal.record import Record
from hpcjobs.run_folder.journal.table import journal_schema, storable, table_of
from tests.runs import record_of

INPUTS = pa.schema([("index", pa.int64()), ("id", pa.string()), ("question", pa.string()), ("n", pa.list_(pa.int8()))])


def asked(count: int) -> pa.Table:
    columns = {
        "index": list(range(count)), "id": [f"row-{n}" for n in range(count)],
        "question": [f"q{n}" for n in range(count)], "n": [[n] for n in range(count)],
    }  # fmt: skip
    return pa.table(columns, schema=INPUTS)


def rows(records: list[Record], schema: pa.Schema, start: int = 0) -> pa.Table:
    """What a merge makes of records of the rows from `start` on."""
    return rows_of(table_of(records, journal_schema(schema)), asked(start + len(records)).slice(start), schema)


@given(st.text(st.characters(exclude_categories=())))
def test_storable_changes_lone_surrogates_alone(text: str) -> None:
    stored = storable(text)
    assert len(stored) == len(text)
    assert all(a == b or "\ud800" <= a <= "\udfff" for a, b in zip(text, stored, strict=True))
    assert pa.array([stored], pa.string())[0].as_py() == stored


def test_rows_have_what_was_asked_what_came_and_the_scores() -> None:
    records = [
        record_of(0, 5, completion="a\ud800\0", scores={"f1": 0.25, "contains": None}),
        record_of(
            1, 6, scores={"f1": 1.0}, error=SampleError("ValueError", "b\udfff"),
            metric_errors=[MetricError("contains", "KeyError", "c\ud800")],
        ),
    ]
    table = rows(records, schema_of(find_metrics(["f1", "contains"]), INPUTS))
    common = {"finish_reason": "stop", "prompt_tokens": 2, "completion_tokens": 1}
    assert table.to_pylist() == [
        {
            "index": 0, "id": "row-0", "completion": "a?\0", "scores": {"f1": 0.25, "contains": None}, "error": None,
            "metric_errors": [], "input": {"question": "q0", "n": [0]}, **common,
        },
        {
            "index": 1, "id": "row-1", "completion": "answer 1", "scores": {"f1": 1.0, "contains": None},
            "error": {"type": "ValueError", "message": "b?"},
            "metric_errors": [{"metric": "contains", "type": "KeyError", "message": "c?"}],
            "input": {"question": "q1", "n": [1]}, **common,
        },
    ]  # fmt: skip


@pytest.mark.parametrize("metrics", [[], ["f1"]])
def test_no_rows_have_the_same_columns(metrics: list[str]) -> None:
    schema = schema_of(find_metrics(metrics), INPUTS)
    table = rows([], schema)
    assert (table.schema, len(table)) == (schema, 0)
    assert ("scores" in schema.names) == bool(metrics)


def test_inputs_without_columns_of_their_own_need_no_struct() -> None:
    schema = schema_of(find_metrics(["f1"]), pa.schema([("index", pa.int64()), ("id", pa.string())]))
    assert "input" not in schema.names
    assert len(rows([record_of(0, 0, scores={"f1": 1.0})], schema)) == 1


def test_the_table_is_there_only_when_all_of_it_is(tmp_path: Path) -> None:
    path, schema = tmp_path / "results.parquet", schema_of([], INPUTS)
    with ResultsWriter(path, schema) as writer:
        for start in (0, 1):
            writer.write(rows([record_of(start, 0)], schema, start))
            assert not path.exists()
    first = path.read_bytes()
    assert pq.read_table(path).column("index").to_pylist() == [0, 1]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way(path, schema)
    assert path.read_bytes() == first
    assert os.listdir(tmp_path) == ["results.parquet"]


def test_the_disk_has_it_all_before_it_is_there_and_no_handle_stays_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, schema, synced = tmp_path / "results.parquet", schema_of([], INPUTS), list[int]()
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))
    before = len(os.listdir("/proc/self/fd"))
    with ResultsWriter(path, schema) as writer:
        writer.write(rows([record_of(0, 0)], schema))
    assert path.stat().st_size in synced
    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way(tmp_path / "other.parquet", schema)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_table_that_cannot_be_finished_leaves_the_one_that_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network file systems tell only when the file is synced that they are full."""
    path, schema = tmp_path / "results.parquet", schema_of([], INPUTS)
    path.write_bytes(b"stands")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError), ResultsWriter(path, schema) as writer:
        writer.write(rows([record_of(0, 0)], schema))
    assert (os.listdir(tmp_path), path.read_bytes()) == (["results.parquet"], b"stands")


def test_each_type_of_task_has_its_columns() -> None:
    likelihoods = {"choice_logprobs", "choice_greedy", "choice_tokens"}
    kinds: dict[str, tuple[dict[str, Any], set[str]]] = {
        "one": ({}, set()), "several": ({"repeats": 2}, {"completions"}), "choice": ({"type": "choice"}, likelihoods),
        "text": ({"type": "perplexity"}, likelihoods), "lm_eval": ({"type": "lm_eval"}, likelihoods | {"completions"}),
    }  # fmt: skip
    for name, (changes, columns) in kinds.items():
        task = TaskConfig().model_copy(update=changes)
        assert {*schema_of([], INPUTS, task).names} & (likelihoods | {"completions"}) == columns, name
    assert schema_of(find_metrics(["bleu", "f1"]), INPUTS).field("statistics").type.names == ["bleu"]
    assert "statistics" not in schema_of(find_metrics(["f1"]), INPUTS).names


def fail_half_way(path: Path, schema: pa.Schema) -> None:
    with ResultsWriter(path, schema) as writer:
        writer.write(rows([record_of(0, 0)], schema))
        raise RuntimeError("half way")
