"""Parquet and Arrow files against pyarrow's own values, from the file through inputs/ to the `input` of results."""

from __future__ import annotations

import datetime
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from hpcjobs.config import DataConfig
from hpcjobs.run_folder.inputs import table_sha256
from hpcjobs.tasks.datasets import load_table
from tests.reference.test_json import back, inputs_of
from tests.reference.values import same

NAMES = count()
TEXTS = st.text(max_size=4)
TIMES = st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2200, 1, 1))
SECONDS = TIMES.map(lambda time: time.replace(microsecond=0))
SCALARS = [
    (pa.int8(), st.integers(-128, 127)), (pa.uint64(), st.integers(0, 2**64 - 1)), (pa.float32(), st.floats(width=32)),
    (pa.float64(), st.floats()), (pa.string(), TEXTS), (pa.large_string(), TEXTS), (pa.string_view(), TEXTS),
    (pa.binary(), st.binary(max_size=4)), (pa.binary(3), st.binary(min_size=3, max_size=3)),
    (pa.decimal128(10, 2), st.decimals(-999, 999, places=2)), (pa.decimal256(50, 3), st.decimals(-999, 999, places=3)),
    (pa.date32(), st.dates()), (pa.date64(), st.dates()), (pa.time64("us"), st.times()), (pa.timestamp("s"), SECONDS),
    (pa.timestamp("s", "Europe/Paris"), SECONDS), (pa.timestamp("us", "UTC"), TIMES), (pa.timestamp("ns"), TIMES),
    (pa.bool_(), st.booleans()), (pa.null(), st.none()),
    (pa.duration("us"), st.timedeltas(datetime.timedelta(-9), datetime.timedelta(9))),
    (pa.dictionary(pa.int8(), pa.string()), TEXTS),
]  # fmt: skip
Typed = tuple[pa.DataType, st.SearchStrategy[Any]]


def struct_of(parts: list[Typed]) -> Typed:
    kinds = [(f"f{number}", kind) for number, (kind, _) in enumerate(parts)]
    return pa.struct(kinds), st.fixed_dictionaries({f"f{n}": values | st.none() for n, (_, values) in enumerate(parts)})


def nested(inner: st.SearchStrategy[Typed]) -> st.SearchStrategy[Typed]:
    lists = inner.map(lambda one: (pa.list_(one[0]), st.lists(one[1], max_size=3)))
    pairs = inner.map(lambda one: (pa.list_(one[0], 2), st.lists(one[1], min_size=2, max_size=2)))
    maps = inner.map(
        lambda one: (
            pa.map_(pa.string(), one[0]),
            st.dictionaries(TEXTS, one[1], max_size=2).map(lambda d: [*d.items()]),
        )
    )
    return lists | pairs | maps | st.lists(inner, min_size=1, max_size=2).map(struct_of)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(data=st.data(), typed=st.recursive(st.sampled_from(SCALARS), nested, max_leaves=3), how=st.integers(0, 2))
def test_rows_are_the_files_and_come_back(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, typed: Typed, how: int
) -> None:
    kind, values = typed
    made = data.draw(st.lists(values | st.none(), max_size=6))
    cut = data.draw(st.integers(0, len(made)))
    folder = tmp_path_factory.getbasetemp() / f"arrow-{next(NAMES)}"
    folder.mkdir()
    path = folder / ("d.parquet" if how == 0 else "d.arrow")
    try:
        column = pa.array(made, kind)
        table = pa.table({"x": pa.chunked_array([column.slice(0, cut), column.slice(cut)])})
        write(table, path, how)
    except pa.ArrowException:
        assume(False)  # not every value has every type's precision, nor every type a file
    expected = (pq.read_table(path) if how == 0 else table).to_pylist()
    found = load_table(DataConfig(name=str(path)))
    inputs = inputs_of(found, folder / "inputs")
    rows = [{"x": inputs[number]["x"]} for number in range(len(inputs))]
    assert same(rows, expected)
    assert same(back(inputs, folder / "results.parquet"), expected)
    cuts = pa.concat_tables([found.slice(0, cut), found.slice(cut).take(pa.array(range(len(found) - cut), pa.int64()))])
    assert table_sha256(cuts) == table_sha256(found)


def write(table: pa.Table, path: Path, how: int) -> None:
    if how == 0:
        pq.write_table(table, path)
    else:
        with (pa.ipc.new_file if how == 1 else pa.ipc.new_stream)(str(path), table.schema) as writer:
            writer.write_table(table)
