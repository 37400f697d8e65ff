"""Data sets of every kind come to one table with `index` and `id`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpcjobs.assets import asset_names
from hpcjobs.config import DataConfig
from hpcjobs.errors import DataError
from hpcjobs.plan.locate import locate
from hpcjobs.run_folder.inputs import user_columns, user_row
from hpcjobs.run_folder.json_columns import python_rows
from hpcjobs.tasks.datasets import expected_work, load_table, on_hub

ROWS: list[dict[str, Any]] = [
    {"q": "one", "n": 1},
    {"q": "zwei \u2028 é\U0001f600\x85", "n": 2},
    {"q": "", "n": None},
]


def load(path: Path | str, **more: Any) -> pa.Table:
    return load_table(DataConfig(name=str(path), **more))


def jsonl(folder: Path, rows: list[Any], end: str = "\n") -> Path:
    path = folder / "data.jsonl"
    text = "".join(json.dumps(row, ensure_ascii=False) + end for row in rows)
    path.write_bytes(text.encode())
    return path


def written(folder: Path, kind: str) -> Path:
    """ROWS in a file of a kind."""
    path = folder / f"data{Path(kind).suffix or '.json'}"
    if kind == "crlf.jsonl":
        jsonl(folder, ROWS, "\r\n")
    elif kind == "blank.jsonl":
        path.write_bytes(b"\n" + b"\n  \n\n".join(json.dumps(row, ensure_ascii=False).encode() for row in ROWS))
    elif kind == "list.json":
        path.write_text(json.dumps(ROWS))
    elif kind == "data.json":
        path.write_text(json.dumps({"version": "v2", "data": ROWS}))
    else:
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path


@pytest.mark.parametrize("kind", ["crlf.jsonl", "blank.jsonl", "list.json", "data.json", "d.parquet"])
def test_each_kind_of_file_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    table = load(written(tmp_path, kind))
    expected = [{"index": number, "id": str(number), **row} for number, row in enumerate(ROWS)]
    assert table.to_pylist() == expected
    assert table.schema.field("index").type == pa.int64()


def test_csv_with_quotes_and_newlines(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text('q,n\n"a, ""b""",1\ncafé,2\n', encoding="utf-8")
    assert load(path).to_pylist() == [
        {"index": 0, "id": "0", "q": 'a, "b"', "n": "1"},
        {"index": 1, "id": "1", "q": "café", "n": "2"},
    ]


def test_a_folder_that_datasets_saved(tmp_path: Path) -> None:
    import datasets

    one = datasets.Dataset.from_list(ROWS[:2])
    one.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": one, "test": one.select([1])}).save_to_disk(str(tmp_path / "two"))
    assert load(tmp_path / "one").column("q").to_pylist() == ["one", ROWS[1]["q"]]
    assert load(tmp_path / "one", max_samples=0).num_rows == 0
    assert load(tmp_path / "one").to_pylist() == load(tmp_path / "two", split="train").to_pylist()
    assert load(tmp_path / "two", split="test").column("q").to_pylist() == [ROWS[1]["q"]]
    with pytest.raises(DataError, match=r"not one of .*: train, test"):
        load(tmp_path / "two")
    with pytest.raises(DataError, match="not one that `datasets` saved"):
        load(tmp_path)


@pytest.mark.parametrize("name", asset_names())
def test_assets_load_by_name(name: str) -> None:
    table = load(name, max_samples=5)
    assert len(table) == 5
    assert locate(name) == name


@pytest.mark.parametrize(("most", "rows"), [(0, 0), (2, 2), (3, 3), (99, 3), (None, 3)])
def test_max_samples(tmp_path: Path, most: int | None, rows: int) -> None:
    assert load(jsonl(tmp_path, ROWS), max_samples=most).num_rows == rows


def test_no_rows_at_all(tmp_path: Path) -> None:
    assert load(jsonl(tmp_path, [])).column_names == ["index", "id"]
    assert load(jsonl(tmp_path, ROWS), max_samples=0).column_names == ["index", "id", "q", "n"]


def test_ids_from_a_column(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [{"key": 7, "id": "x"}, {"key": 3, "id": "x"}])
    assert load(path, id_column="key").column("id").to_pylist() == ["7", "3"]
    with pytest.raises(DataError, match=r"id_column 'kee' is not a column \(did you mean 'key'\?\); columns: key, id"):
        load(path, id_column="kee")


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", "b", "a"], r"id 'a' stands twice in column 'id': rows 0 and 2"),
        (["a", None], r"row 1 has no id in column 'id'"),
        (["a", ""], r"row 1 has no id in column 'id'"),
    ],
)
def test_ids_are_there_and_unique(tmp_path: Path, ids: list[str | None], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(jsonl(tmp_path, [{"id": one} for one in ids]))


def test_only_the_rows_that_are_asked_for_are_checked(tmp_path: Path) -> None:
    assert len(load(jsonl(tmp_path, [{"id": "a"}, {"id": "a"}]), max_samples=1)) == 1


@pytest.mark.parametrize(
    "row",
    [
        {"id": 5, "index": "mine", "q": "x"},
        {"id": "5", "index": 0, "q": "x"},
        {"source_id": "s", "source_index": 9, "source_text": "t"},
        {"id": 5, "source_id": "s", "source_source_id": "ss"},
        {"index": 3, "source_index": "s"},
        {"source": "x", "ident": 1, "source_ids": [1]},
    ],
)
def test_a_template_sees_the_users_own_columns(tmp_path: Path, row: dict[str, Any]) -> None:
    table = load(jsonl(tmp_path, [row]))
    seen = user_row(table.to_pylist()[0])
    assert seen == {"index": 0, "id": str(row.get("id", "0"))} | row
    assert set(user_columns(table.column_names)) == set(seen)
    assert table.column("index").to_pylist() == [0]
    assert all(isinstance(one, str) for one in table.column("id").to_pylist())


def test_nested_columns_and_missing_keys(tmp_path: Path) -> None:
    rows = [{"a": {"b": [1, 2]}, "m": [{"role": "user", "content": "x"}]}, {"a": {"b": [], "c": "y"}}]
    first, second = python_rows(load(jsonl(tmp_path, rows)))
    assert first["a"] == {"b": [1, 2]}
    assert first["m"] == [{"role": "user", "content": "x"}]
    assert second["a"] == {"b": [], "c": "y"}
    assert second["m"] is None


@pytest.mark.parametrize("values", [[1, "x"], ["x", 1], [{"a": 1}, "x"], [1, 2.5, None], [2**70, "\u2028"], [True, 1]])
def test_a_column_of_mixed_types_keeps_each_value(tmp_path: Path, values: list[Any]) -> None:
    rows = python_rows(load(jsonl(tmp_path, [{"fine": 1, "mixed": value} for value in values])))
    assert [(type(row["mixed"]), row["mixed"]) for row in rows] == [(type(value), value) for value in values]
    assert {row["fine"] for row in rows} == {1}


@pytest.mark.parametrize("value", ["\ud800", ["x", {"\udfff": 1}], {"k": ["a\ud83d"]}, [1, "\udc00"]])
def test_half_a_surrogate_pair_is_named_by_line_and_column(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text("\n" + "".join(json.dumps({"fine": 1, "text": one}) + "\n" for one in ("ok", value)))
    with pytest.raises(DataError, match=r"d\.jsonl:3: row 1, column 'text': \\ud[0-9a-f]{3} is half"):
        load(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.jsonl", b'{"a": 1}\n{"a": \n', r"d\.jsonl:2: not JSON: Expecting value \(character 7\)$"),
        ("d.jsonl", b'{"a": 1}\n[1]\n', r"d\.jsonl:2: row 1 is list, not an object"),
        ("d.jsonl", b'{"a": "\xff"}\n', r"d\.jsonl:1: not JSON"),
        ("d.json", b"{", r"d\.json: not JSON"),
        ("d.json", b'{"a": 1}', r"d\.json: not a list of rows"),
        ("d.json", b"7", r"d\.json: not a list of rows"),
        ("d.csv", b"", r"d\.csv cannot be read"),
        ("d.jsonl", b'{"a": 1}\n\n{"a": "\xe9"}\n', r"d\.jsonl:3: not JSON: byte 0xe9 \(byte 7 of the line"),
        ("d.csv", b"a,b\n1\n", r"d\.csv cannot be read: line 2 has 1 values, and the header 2"),
        ("d.csv", b'a,b\n"1\n\n2",3\n1,2,3\n', r"d\.csv cannot be read: line 5 has 3 values, and the header 2"),
        ("d.csv", b'a,b\n1,2\n1,"2\n', r"d\.csv cannot be read: line 3 opens a quote that is never closed"),
        ("d.csv", b'a\n"', r"d\.csv cannot be read: line 2 opens a quote that is never closed"),
        ("d.csv", b"\na\n", r"d\.csv cannot be read: its first line has no names of columns"),
        ("d.csv", b"q,a\nx,y\n\xe9,x\n", r"d\.csv:3: byte 0xe9, byte 8 of the file, is no UTF-8"),
        ("d.csv", b"a,b,a\n1,2,3\n", r"d\.csv has two columns of one name: a"),
        ("d.parquet", b"PAR1 no", r"d\.parquet cannot be read"),
        ("d.txt", b"x", r"d\.txt: its ending must be one of \.jsonl"),
    ],
)
def test_a_file_that_is_not_what_its_name_says(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load(tmp_path / name)


@pytest.mark.parametrize("name", ["none.jsonl", "/no/such/folder", "./none", "~/none.csv", "a b"])
def test_what_does_not_exist_is_not_asked_of_the_hub(name: str) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load(locate(name))


def test_nothing_named() -> None:
    with pytest.raises(DataError, match=r"data\.name is not set.*canned_50_quick"):
        load("")


def test_locate_makes_paths_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    assert locate("d.jsonl") == str(tmp_path / "d.jsonl")
    assert locate("folder") == str(tmp_path / "folder")
    assert locate("org/name") == "org/name"


def test_expected_work_is_the_length_of_the_prompts_columns() -> None:
    table = pa.table({"a": ["xx", "", None], "b": [[1, 2], [], None], "c": ["long " * 9] * 3})
    assert expected_work(table, {"a", "b"}).tolist() == [2 + len("[1, 2]"), len("[]"), 2 * len("None")]
    assert expected_work(table, set()).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("columns", "kept"),
    [
        ({"index": [0, 1], "q": ["a", "b"]}, []), ({"index": [1, 0]}, ["source_index"]),
        ({"index": [0, None]}, ["source_index"]), ({"index": [0.0, 1.0]}, ["source_index"]),
        ({"index": [False, True]}, ["source_index"]), ({"index": ["0", "1"]}, ["source_index"]),
        ({"index": pa.array([0, 1], pa.int8())}, []), ({"id": ["0", "1"]}, []), ({"id": ["1", "0"]}, []),
        ({"id": [0, 1]}, ["source_id"]),
    ],
)  # fmt: skip
def test_a_column_that_is_ours_in_all_values_and_its_type_is_not_kept_twice(
    tmp_path: Path, columns: dict[str, Any], kept: list[str]
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "data.parquet")
    table = load(tmp_path / "data.parquet")
    assert [name for name in table.column_names if name.startswith("source_")] == kept
    assert table.column("index").to_pylist() == [0, 1]


def test_what_can_only_be_a_name_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert [name for name in ("someone/name", "owner/here", "./owner/name", "owner/*", "a b", asset_names()[0])
            if on_hub(name)] == ["someone/name"]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "mark"), [("d.csv", ";"), ("d.csv", "\t"), ("d.csv", "|"), ("d.tsv", ","), ("d.CSV", ";")]
)
def test_a_csv_file_with_another_delimiter_is_refused_until_it_is_named(tmp_path: Path, name: str, mark: str) -> None:
    path, usual = tmp_path / name, "\t" if name == "d.tsv" else ","
    path.write_text(f"question{mark}answer\n1{usual}5{mark}x\n")
    with pytest.raises(DataError, match=r"set data\.delimiter to ") as error:
        load_table(DataConfig(name=str(path)))
    said = f"its first line has no {usual!r}, but {mark!r}: set data.delimiter to {mark!r} (to {usual!r} if it is one"
    assert said in str(error.value)
    table = load_table(DataConfig(name=str(path), delimiter=mark))
    assert table.select(["question", "answer"]).to_pylist() == [{"question": f"1{usual}5", "answer": "x"}]
    path.write_text(f"a{mark}b\n1\n")
    assert load_table(DataConfig(name=str(path), delimiter=usual)).column(f"a{mark}b").to_pylist() == ["1"]


def test_a_delimiter_is_for_csv_alone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.delimiter is for \.csv and \.tsv files, and unified is none: leave"):
        load_table(DataConfig(name="unified", delimiter=";"))
    import datasets

    datasets.Dataset.from_list([{"a": 1}]).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(DataError, match=r"data\.delimiter is for"):
        load_table(DataConfig(name=str(tmp_path / "saved"), delimiter=";"))
