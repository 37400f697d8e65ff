"""Which files a name means, and which split each of them is."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pytest

from hpcjobs.errors import DataError
from hpcjobs.tasks.arrow_rows import roomy
from hpcjobs.tasks.csv_types import csv_values
from hpcjobs.tasks.file_names import (
    files_in,
    files_of,
    is_pattern,
    is_saved,
    of_split,
    one_kind,
    open_bytes,
    saved_in,
    split_of,
)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00002.parquet", "train"), ("dev-00000-of-00001.parquet", "validation"),
        ("main-00000-of-00001.parquet", "main"), ("test.jsonl", "test"), ("my_eval.csv", "test"),
        ("gsm8k-val.jsonl", "validation"), ("training.json", "train"), ("trainer.json", None), ("rows.jsonl", None),
        ("test/rows.jsonl", "test"), ("dev-set/rows.jsonl", "validation"), ("en/validation/rows.jsonl", "validation"),
        ("latest/rows.jsonl", None), ("test/train.jsonl", "test"),
    ],
)  # fmt: skip
def test_the_split_that_a_name_says(name: str, split: str | None) -> None:
    """As `datasets` reads names: whole words, shards, and folders above before the name."""
    assert split_of(Path("/data") / name, Path("/data")) == split


def test_a_single_file_is_of_the_folder_that_is_named_as_a_split() -> None:
    assert split_of(Path("/train/dev/rows.jsonl"), None) == "validation"
    assert split_of(Path("/train/my-dev/rows.jsonl"), None) is None
    assert split_of(Path("/train/my/test.jsonl"), None) == "test"


def test_a_folder_of_several_splits_needs_one_named(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("train.jsonl", "test.jsonl", "rows.jsonl")]
    assert of_split(files, "test", "x", tmp_path) == [files[1]]
    assert of_split(files[2:], "train", "x", tmp_path) == of_split(files[2:], None, "x", tmp_path) == files[2:]
    assert of_split(files, None, "x") == files, "files that are named one by one"
    assert of_split(files[:1], None, "x", tmp_path) == files[:1], "one split alone need not be named"
    for some, said in ((files[:2], "test, train: set"), (files[1:], "test, and files that name none: set")):
        with pytest.raises(DataError, match=f"has the splits {said} data.split to one"):
            of_split(some, None, "x", tmp_path)
    with pytest.raises(DataError, match=r"data.split 'tset' is not one of x's: test, train \(did you mean 'test'\?\)"):
        of_split(files[:2], "tset", "x", tmp_path)
    with pytest.raises(DataError, match=r"data.split 'test' is not one of x's: train, as no name of a file says"):
        of_split(files[2:], "test", "x", tmp_path)
    with pytest.raises(DataError, match=r"data.split 'train' is not one of x's: test"):
        of_split(files[1:], "train", "x", tmp_path)


def test_the_data_files_of_a_folder_are_those_that_nobody_has_hidden(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for name in ("b.jsonl", "a/c.csv", ".hidden.jsonl", "__pycache__/d.jsonl", "a/.cache/e.jsonl", "notes.md",
                 "dataset_info.json", "state.json", "f.jsonl.gz"):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "folder.jsonl").mkdir()
    assert [str(path.relative_to(folder)) for path in files_in(folder)] == ["a/c.csv", "b.jsonl", "f.jsonl.gz"]
    assert is_saved(folder)
    assert not is_saved(folder / "a")
    assert saved_in(tmp_path) == folder
    assert saved_in(folder / "a") is None
    (folder / "a" / "dataset_infos.json").touch()
    assert not is_saved(folder / "a"), "it stands beside data files too"


def test_a_pattern_is_files_in_order_and_a_name_itself(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "[x].jsonl"):
        (tmp_path / name).touch()
    (tmp_path / "c.jsonl").mkdir()
    assert [path.name for path in files_of([str(tmp_path / "*.jsonl")])] == ["[x].jsonl", "a.jsonl", "b.jsonl"]
    assert [path.name for path in files_of([str(tmp_path / "b.jsonl"), str(tmp_path / "[x].jsonl")])] \
        == ["b.jsonl", "[x].jsonl"]
    assert is_pattern("a*.jsonl")
    assert not is_pattern(str(tmp_path / "[x].jsonl")), "there is a file of that name"
    with pytest.raises(DataError, match=r"no file is .*\*\.csv"):
        files_of([str(tmp_path / "*.csv")])
    with pytest.raises(DataError, match=r"data file .*z\.jsonl does not exist"):
        files_of([str(tmp_path / "z.jsonl")])


def test_files_are_of_one_kind() -> None:
    assert one_kind([Path("a.JSONL"), Path("b.ndjson.gz")], "x") == ".jsonl"
    with pytest.raises(DataError, match=r"x has files of several kinds \(.csv, .jsonl\): name those of one"):
        one_kind([Path("a.csv"), Path("b.jsonl")], "x")
    with pytest.raises(DataError, match=r"data file a\.txt9: its ending must be one of"):
        one_kind([Path("a.txt9"), Path("b.jsonl")], "x")


def test_packed_files_are_read_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.GZ").write_bytes(gzip.compress(b"text"))
    with pa.output_stream(str(tmp_path / "a.zst"), compression="zstd") as file:
        file.write(b"text")
    (tmp_path / "a.jsonl").write_bytes(b"text")
    for path in tmp_path.iterdir():
        with open_bytes(path) as file:
            assert file.read() == b"text", path


def test_long_text_columns_get_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpcjobs.tasks.arrow_rows._LONG", 100)
    table = pa.table({"n": [1, 2], "short": ["a", "b"], "long": ["x" * 60, "y" * 60]})
    found = roomy(table)
    assert [field.type for field in found.schema] == [pa.int64(), pa.string(), pa.large_string()]
    assert found.to_pylist() == table.to_pylist()


@pytest.mark.parametrize("text", [str(2**63 - 1), str(-(2**63)), "0", "-7"])
def test_an_integer_is_of_64_bits(text: str) -> None:
    assert csv_values([text], "int64", str).to_pylist() == [int(text)]


@pytest.mark.parametrize("text", [str(2**63), str(-(2**63) - 1), "1.0", "x"])
def test_what_is_no_integer_of_64_bits_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="is no int64"):
        csv_values([text], "int64", str)
