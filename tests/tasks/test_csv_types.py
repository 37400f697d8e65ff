from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.errors import ConfigError, DataError
from hpcjobs.run_folder.json_columns import python_rows
from hpcjobs.tasks.datasets import load_table


def load(path: Path, types: dict[str, str]) -> list[Any]:
    config = validate(Layer({"data": {"name": str(path), "types": types}}))
    return [row["x"] for row in python_rows(load_table(config.data))]


def csv_of(folder: Path, *texts: str) -> Path:
    path = folder / "d.csv"
    path.write_text("x,y\n" + "".join('"' + text.replace('"', '""') + '",t\n' for text in texts))
    return path


@pytest.mark.parametrize(
    ("kind", "texts", "values"),
    [
        ("int64", ["12", "-0", " 7 ", "", "9223372036854775807"], [12, 0, 7, None, 2**63 - 1]),
        ("int", ["007"], [7]),
        ("float64", ["12", "1e-3", ".5", "", "-Infinity"], [12.0, 0.001, 0.5, None, float("-inf")]),
        ("float", ["0.30000000000000004"], [0.30000000000000004]),
        ("bool", ["true", "FALSE", ""], [True, False, None]),
        ("string", ["007", "", " "], ["007", "", " "]),
        ("str", ["1"], ["1"]),
        ("json", ['{"a": [1, 2.5]}', "[]", "", "12", '"x"', "null"], [{"a": [1, 2.5]}, [], None, 12, "x", None]),
    ],
)
def test_named_columns_get_their_type(tmp_path: Path, kind: str, texts: list[str], values: list[Any]) -> None:
    found = load(csv_of(tmp_path, *texts), {"x": kind})
    assert [(type(one), one) for one in found] == [(type(one), one) for one in values]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("int64", "1.0"), ("int64", "1_000"), ("int64", "9223372036854775808"), ("int64", "NA"), ("int64", "١"),
        ("float64", "1,5"), ("float64", "1e400"), ("float64", "0x1p3"), ("bool", "1"), ("bool", "yes"),
        ("json", "{a: 1}"),
    ],
)  # fmt: skip
def test_a_text_of_another_type_is_named(tmp_path: Path, kind: str, text: str) -> None:
    path = csv_of(tmp_path, "", text)
    with pytest.raises(DataError, match=rf"d\.csv: row 1, column 'x': .* is no {kind}, and data\.types says so"):
        load(path, {"x": kind})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": ["\\ud800"]}', r"row 1, column 'x': \\ud800 is half of a surrogate pair"),
        ('{"\\udfff": 1}', r"row 1, column 'x': \\udfff is half of a surrogate pair"),
        ("[" * 257 + "]" * 257, r"row 1, column 'x': nested more than 256 deep"),
        ("[" * 100_000, r"row 1, column 'x': .* is no json"),
    ],
)
def test_json_that_cannot_be_kept_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(csv_of(tmp_path, "[]", text), {"x": "json"})
    assert load(csv_of(tmp_path, '"\\ud83d\\ude00"'), {"x": "json"}) == ["\U0001f600"]
    deepest = json.loads("[" * 256 + "]" * 256)
    assert load(csv_of(tmp_path, json.dumps(deepest)), {"x": "json"}) == [deepest]


def test_wrong_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.types: .*d\.csv has no column 'xx' \(did you mean 'x'\?\)"):
        load(csv_of(tmp_path, "1"), {"xx": "int"})
    with pytest.raises(ConfigError, match=r"data\.types"):
        load(csv_of(tmp_path, "1"), {"x": "date"})
    (tmp_path / "d.jsonl").write_text('{"x": 1}\n')
    with pytest.raises(DataError, match=r"column 'x' of .*d\.jsonl has int64, neither text nor string"):
        load(tmp_path / "d.jsonl", {"x": "string"})
