"""Splits and results against `datasets`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.config import DataConfig
from hpcjobs.errors import DataError
from hpcjobs.merge.results import schema_of
from hpcjobs.run_folder.inputs import Inputs
from hpcjobs.tasks.datasets import load_table
from tests.reference.test_json import back, inputs_of

FOLDERS = [
    ["a.jsonl", "b.jsonl"],
    ["train.jsonl", "test.jsonl"],
    ["train/a.jsonl", "test/b.jsonl", "test/c.jsonl"],
    ["train/test.jsonl", "test/train.jsonl"],
    ["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl", "data/foo-00000-of-00001.jsonl"],
    ["my_train_file.jsonl", "dev.jsonl"],
    ["evaluation.jsonl", "training.jsonl"],
    ["latest.jsonl"],
    ["train1.jsonl", "train.v2.jsonl"],
    ["a/train.jsonl", "b/dev.jsonl", ".hidden/x.jsonl", "__cache__/y.jsonl"],
    ["data/train.jsonl", "test.jsonl"],
    ["eval-00000-of-00001.jsonl"],
]


@pytest.mark.parametrize("names", FOLDERS, ids="+".join)
def test_a_folders_splits_are_those_of_datasets(tmp_path: Path, names: list[str]) -> None:
    from datasets import load_dataset

    folder = tmp_path / "shards"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps({"file": name}) + "\n")
    theirs = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {split: sorted(rows["file"]) for split, rows in theirs.items()} == {
        split: files_of(folder, split) for split in theirs
    }
    if len(theirs) == 1:
        assert files_of(folder, None) == sorted(theirs[next(iter(theirs))]["file"])
    else:
        with pytest.raises(DataError, match=r"has the splits .*: set data\.split to one"):
            files_of(folder, None)
    with pytest.raises(DataError, match=r"data.split 'other' is not one of"):
        files_of(folder, "other")


def files_of(folder: Path, split: str | None) -> list[str]:
    found: list[str] = load_table(DataConfig(name=str(folder), split=split)).column("file").to_pylist()
    return found


def test_datasets_loads_results_with_columns_of_json(tmp_path: Path) -> None:
    from datasets import load_dataset

    rows: list[dict[str, Any]] = [
        {"m": 2**70, "n": 1},
        {"m": {}, "n": 2},
        {"m": float("inf"), "n": 3},
        {"m": "x", "n": 4},
    ]
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    inputs: Inputs = inputs_of(load_table(DataConfig(name=str(path))), tmp_path / "inputs")
    assert back(inputs, tmp_path / "results.parquet") == rows
    assert schema_of([], inputs.schema).field("input").type.num_fields == 2
    theirs = load_dataset("parquet", data_files=str(tmp_path / "results.parquet"), cache_dir=str(tmp_path / "cache"))
    found = [row["input"] for row in theirs["train"]]
    assert [{"m": json.loads(row["m"]), "n": row["n"]} for row in found] == rows


def test_a_saved_folder_with_types_of_its_own(tmp_path: Path) -> None:
    import datasets

    saved = datasets.Dataset.from_dict({"label": ["a", "b", "a"], "n": [1, None, 3]}).class_encode_column("label")
    saved.select([2, 0]).save_to_disk(str(tmp_path / "one"))
    expected = [{"label": row["label"], "n": row["n"]} for row in saved.select([2, 0])]
    assert load_table(DataConfig(name=str(tmp_path / "one"))).select(["label", "n"]).to_pylist() == expected
    with pytest.raises(DataError, match=r"data.split 'test' is not one of .*: train"):
        load_table(DataConfig(name=str(tmp_path / "one"), split="test"))
    with pytest.raises(DataError, match=r"data.config 'main' is for data sets of the hub"):
        load_table(DataConfig(name=str(tmp_path / "one"), config="main"))
