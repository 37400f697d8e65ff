"""Files of a data set: packed, in folders, by patterns and in lists."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpcjobs.config import DataConfig
from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.errors import DataError
from hpcjobs.plan.locate import located
from hpcjobs.run_folder.json_columns import python_rows
from hpcjobs.tasks.datasets import load_table

ROWS: list[dict[str, Any]] = [{"q": "é\u2028", "n": "1"}, {"q": 'a "b", c', "n": "2"}]


def load(name: Path | tuple[Path, ...], **more: Any) -> list[dict[str, Any]]:
    names = str(name) if isinstance(name, Path) else tuple(map(str, name))
    rows = python_rows(load_table(DataConfig(name=names, **more)))
    return [{key: value for key, value in row.items() if key not in ("index", "id")} for row in rows]


def content(kind: str, rows: list[dict[str, Any]] = ROWS) -> bytes:
    if kind == ".json":
        return json.dumps(rows).encode()
    if kind in (".jsonl", ".ndjson"):
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    between = "," if kind == ".csv" else "\t"
    cells = [list(rows[0]), *(['"' + value.replace('"', '""') + '"' for value in row.values()] for row in rows)]
    return "".join(between.join(line) + "\n" for line in cells).encode()


def packed(data: bytes, how: str) -> bytes:
    if not how:
        return data
    if how == ".gz":
        return gzip.compress(data[:20]) + gzip.compress(data[20:])
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


@pytest.mark.parametrize("how", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", [".jsonl", ".ndjson", ".json", ".csv", ".tsv"])
@pytest.mark.parametrize("upper", [False, True])
def test_texts_are_read_packed_and_by_any_case_of_their_ending(
    tmp_path: Path, kind: str, how: str, upper: bool
) -> None:
    path = tmp_path / ("d" + ((kind + how).upper() if upper else kind + how))
    path.write_bytes(packed(content(kind), how))
    assert load(path) == ROWS


@pytest.mark.parametrize("how", [".gz", ".zst"])
@pytest.mark.parametrize("kind", [".jsonl", ".csv"])
def test_a_packed_file_that_is_cut_off_is_an_error(tmp_path: Path, kind: str, how: str) -> None:
    path = tmp_path / f"d{kind}{how}"
    path.write_bytes(packed(content(kind), how)[:-5])
    with pytest.raises(DataError, match=r"cannot be read: .*(end-of-stream|Truncated)"):
        load(path)


def test_parquet_and_arrow_by_any_case_but_not_packed(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "d.PARQUET")
    assert load(tmp_path / "d.PARQUET") == ROWS
    (tmp_path / "d.parquet.gz").write_bytes(gzip.compress((tmp_path / "d.PARQUET").read_bytes()))
    with pytest.raises(DataError, match=r"\.parquet is packed already; unpack it first"):
        load(tmp_path / "d.parquet.gz")


def test_a_folder_called_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    (tmp_path / "year=2020").mkdir()
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "year=2020/d.parquet")
    assert load(tmp_path / "year=2020/d.parquet") == load(tmp_path) == ROWS


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for number in (2, 0, 1):
        (folder / f"part-{number}.jsonl").write_bytes(content(".jsonl", [{"n": number}, {"n": number + 0.5}]))
    (folder / "README.md").write_text("no data")
    return folder


def test_globs_folders_and_lists(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [{"n": value} for value in (0, 0.5, 1, 1.5, 2, 2.5)]
    assert load(shards) == load(shards / "*.jsonl") == load(shards.parent / "**" / "*.jsonl") == expected
    assert [type(row["n"]) for row in load(shards)] == [int, float] * 3
    assert load((shards / "part-2.jsonl", shards / "part-0.jsonl")) == expected[4:] + expected[:2]
    monkeypatch.chdir(shards.parent)
    for name in ("data/part-*.jsonl", ("data/part-0.jsonl", "data/part-[12].jsonl")):
        config = located(validate(Layer({"data": {"name": name}})))
        assert all(Path(one).is_absolute() for one in config.data.names)
        monkeypatch.chdir("/")
        assert python_rows(load_table(config.data))[5]["n"] == 2.5
        monkeypatch.chdir(shards.parent)


def test_names_that_mean_no_file(shards: Path) -> None:
    with pytest.raises(DataError, match=r"no file is .*\*\.csv"):
        load(shards / "*.csv")
    with pytest.raises(DataError, match=r"data file .*part-9\.jsonl does not exist"):
        load((shards / "part-0.jsonl", shards / "part-9.jsonl"))
    with pytest.raises(DataError, match=r"data\.name is not set"):
        load(())
    (shards / "more.csv").write_text("n\n1\n")
    with pytest.raises(DataError, match=r"has files of several kinds \(\.csv, \.jsonl\): name those of one"):
        load(shards)


def test_a_file_with_a_patterns_signs_in_its_name(tmp_path: Path) -> None:
    path = tmp_path / "d[1].jsonl"
    path.write_bytes(content(".jsonl"))
    assert load(path) == ROWS


def test_json_shards_may_lack_columns_and_take_the_type_that_holds_all(tmp_path: Path) -> None:
    parts: list[list[dict[str, Any]]] = [
        [{"a": 1, "s": {"x": 1}}],
        [{"b": None}],
        [{"a": "x", "b": [1], "s": {"y": 2}}],
    ]
    for number, rows in enumerate(parts):
        (tmp_path / f"{number}.jsonl").write_bytes(content(".jsonl", rows))
    assert load(tmp_path) == [
        {"a": 1, "s": {"x": 1}, "b": None}, {"a": None, "s": None, "b": None}, {"a": "x", "s": {"y": 2}, "b": [1]},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"a": ["x"], "c": [1]}, r"1\.parquet has other columns than .*0\.parquet: 'b', 'c'"),
        ({"b": [1.0], "a": ["x"]}, r"1\.parquet: column 'b' holds double, and int64 in .*0\.parquet"),
    ],
)
def test_other_shards_have_the_same_columns_of_one_type(tmp_path: Path, second: dict[str, Any], message: str) -> None:
    pq.write_table(pa.table({"a": ["x"], "b": [1]}), tmp_path / "0.parquet")
    pq.write_table(pa.table(second), tmp_path / "1.parquet")
    with pytest.raises(DataError, match=message):
        load(tmp_path)
    pq.write_table(pa.table({"b": pa.nulls(1), "a": ["y"]}), tmp_path / "1.parquet")
    assert load(tmp_path) == [{"a": "x", "b": 1}, {"a": "y", "b": None}]


def test_a_split_among_files(tmp_path: Path) -> None:
    for name in ("train.jsonl", "test.jsonl"):
        (tmp_path / name).write_bytes(content(".jsonl", [{"file": name}]))
    assert load(tmp_path / "*.jsonl") == [{"file": "test.jsonl"}, {"file": "train.jsonl"}]
    assert (
        load(tmp_path / "*.jsonl", split="test")
        == load(tmp_path / "test.jsonl", split="test")
        == [{"file": "test.jsonl"}]
    )
    with pytest.raises(DataError, match=r"'train' is not one of .*test\.jsonl's: test"):
        load(tmp_path / "test.jsonl", split="train")
    (tmp_path / "more.jsonl").write_bytes(content(".jsonl", [{"file": "more"}]))
    (tmp_path / "train.jsonl").unlink()
    with pytest.raises(DataError, match=r"has the splits test, and files that name none: set data\.split"):
        load(tmp_path)


def test_a_folder_without_data(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(DataError, match="not one that `datasets` saved, and has no data files"):
        load(tmp_path)
