"""Files that were once read as others than they are: through the plan to what a template and the results have."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from hpcjobs.config import Config
from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.errors import ConfigError, DataError
from hpcjobs.plan.eval import make_plan
from hpcjobs.run_folder.inputs import Inputs, user_columns, user_row
from hpcjobs.run_folder.json_columns import python_rows
from hpcjobs.tasks.datasets import load_table
from hpcjobs.tasks.prompts import Prompts

TASK = {"prompt": "{{ q }} Reference {{ gold }}", "target": "{{ gold }}", "metrics": ("exact_match",)}


def config_of(path: Path, task: dict[str, Any] | None = None, **data: Any) -> Config:
    model = {"name": "tiny", "engine": "dummy"}
    return validate(Layer({"model": model, "data": {"name": str(path)} | data, "task": task or TASK}))


def planned(path: Path, task: dict[str, Any] | None = None, **data: Any) -> tuple[Inputs, Prompts]:
    """The rows that a rank would find, and what it would ask."""
    draft = make_plan("eval", config_of(path, task, **data), path.with_name("run"))
    draft.write()
    inputs = Inputs(draft.paths.data)
    return inputs, Prompts(draft.config.task, user_columns(inputs.columns))


def targets(path: Path, **data: Any) -> list[Any]:
    inputs, prompts = planned(path, **data)
    return [prompts.target(user_row(inputs[number])) for number in range(len(inputs))]


def lines(folder: Path, *rows: Any) -> Path:
    path = folder / "data.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_line_breaks_in_quotes_beyond_a_megabyte(tmp_path: Path) -> None:
    path = tmp_path / "many.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "answer"])
        writer.writerows([f"Line one {n}\n" + 'and "more", of it\r\n' * 40, n] for n in range(1800))
    task = TASK | {"prompt": "{{ question }}", "target": "{{ answer }}"}
    inputs, _ = planned(path, task)
    with path.open(newline="") as file:
        expected = list(csv.DictReader(file))
    assert [{name: inputs[n][name] for name in ("question", "answer")} for n in range(len(inputs))] == expected


def test_objects_with_other_keys_give_no_options_of_their_own(tmp_path: Path) -> None:
    options = [{"A": "x", "B": "y"}, {"B": "1", "A": "2", "C": "3"}]
    rows = [{"q": "1", "options": one, "gold": 0} for one in options]
    task = TASK | {"type": "choice", "choices": "{{ options.values() | list }}", "metrics": ("acc",)}
    inputs, prompts = planned(lines(tmp_path, *rows), task)
    assert [prompts.options(user_row(inputs[number])) for number in (0, 1)] == [["x", "y"], ["1", "2", "3"]]


@pytest.mark.parametrize(
    "text", ["10:30", "01234", "true", "TRUE", "5.10", "2020-01-05 10:00", "NA", "", "1e5", "null", " 7 ", "2020-01-05"]
)
def test_a_csv_is_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"id,q,gold\n007,x,{text}\n008,y,{text}\n")
    inputs, prompts = planned(path)
    assert inputs.ids(0, 2) == ["007", "008"]
    assert [prompts.target(user_row(inputs[number])) for number in (0, 1)] == [text, text]
    assert prompts.request(inputs[0], 0).prompt == f"x Reference {text}"


def test_integers_of_any_length(tmp_path: Path) -> None:
    path = lines(tmp_path, {"q": "x", "gold": 2**70}, {"q": "y", "gold": 2**53 + 1}, {"q": "z", "gold": 0.5})
    assert targets(path) == [str(2**70), str(2**53 + 1), "0.5"]


def test_integers_beyond_2_to_the_53_beside_fractions_behind_the_first_block(tmp_path: Path) -> None:
    filler = "x" * 1000
    rows = [{"q": filler, "gold": n + 0.5} for n in range(9000)]
    path = lines(tmp_path, *rows, {"q": "last", "gold": 2**53 + 1})
    assert targets(path)[-2:] == ["8999.5", str(2**53 + 1)]


def test_whole_numbers_beside_a_fraction_stay_whole(tmp_path: Path) -> None:
    path = lines(tmp_path, *({"q": "a", "gold": one} for one in (12, 4, 3.5, 12.0)))
    assert targets(path) == ["12", "4", "3.5", "12.0"]


def test_null_and_not_a_number_are_two_things(tmp_path: Path) -> None:
    path = lines(tmp_path, *(f'{{"q": "a", "gold": {one}}}' for one in ("NaN", "null", "-Infinity")))
    assert targets(path) == ["nan", None, "-inf"]


def test_a_split_of_a_json_file_is_its_list(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    lists = {"train": [{"q": n, "gold": "train"} for n in range(3)], "test": [{"q": 9, "gold": "test"}]}
    path.write_text(json.dumps(lists))
    assert targets(path, split="test") == ["test"]
    with pytest.raises(DataError, match=r"'tset' is no list of .*: it has 'train', 'test' \(did you mean 'test'"):
        planned(path, split="tset")
    with pytest.raises(DataError, match=r"an object with several lists: set data.split to one of 'train', 'test'"):
        planned(path)


@pytest.mark.parametrize("name", ["data.jsonl", "data.json", "data.csv"])
def test_a_split_that_a_file_does_not_have_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("q,gold\n1,2\n" if name == "data.csv" else '{"q": 1, "gold": 2}\n{"q": 1, "gold": 2}\n')
    with pytest.raises(DataError, match=r"'test' is not one of .*: train, as no name of a file says another"):
        planned(path, split="test")
    assert len(planned(path, split="train")[0]) > 0
    with pytest.raises(DataError, match=r"data.config 'main' is for data sets of the hub"):
        planned(path, config="main")


@pytest.mark.parametrize("value", [{}, [{}], {"a": {}}, [{"a": [{}]}], {"a": {}, "b": 1}])
def test_empty_objects_can_be_written_at_the_end(tmp_path: Path, value: Any) -> None:
    inputs, _ = planned(lines(tmp_path, {"q": "a", "gold": "b", "meta": value}, {"q": "a", "gold": "b", "meta": value}))
    assert inputs[1]["meta"] == value
    pq.write_table(inputs.rows(0, 2), tmp_path / "written.parquet")
    assert python_rows(pq.read_table(tmp_path / "written.parquet"))[0]["meta"] == value


def test_of_several_lists_none_is_guessed(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps({"categories": [{"q": "CAT", "gold": 1}], "questions": [{"q": "x", "gold": 1}] * 2}))
    with pytest.raises(DataError, match=r"several lists: set data.split to one of 'categories', 'questions'"):
        planned(path)
    assert targets(path, split="questions") == ["1", "1"]


def test_json_lines_called_json_are_read(tmp_path: Path) -> None:
    path = lines(tmp_path, {"q": "a", "gold": 1}, {"q": "b", "gold": 2.5}).rename(tmp_path / "data.json")
    assert targets(path) == ["1", "2.5"]


def test_latin_1_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(b"q,a\nhello,x\n\xe9,x\n")
    with pytest.raises(DataError, match=r"data\.csv:3: byte 0xe9, byte 12 of the file, is no UTF-8"):
        planned(path)


@pytest.mark.parametrize("name", ["data.json", "data.jsonl", "data.csv"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-le", "utf-16-be"])
def test_other_encodings_of_unicode_are_refused(tmp_path: Path, name: str, encoding: str) -> None:
    path = tmp_path / name
    text = "q,gold\n\xe9,2\n" if name == "data.csv" else '{"q": "\xe9", "gold": 2}\n' * 2
    path.write_bytes(text.encode(encoding))
    with pytest.raises(DataError, match=r"data\.(json|jsonl|csv):[12]: .* is no UTF-8|data\.jsonl?.*: not JSON"):
        load_table(config_of(path).data)
    path.write_bytes(text.encode("utf-8-sig"))
    assert planned(path)[0][0]["q"] == "\xe9"


@pytest.mark.parametrize("name", ["loop", "range", "error", "completion", "input", "source_id", "args", "kwargs"])
def test_a_column_may_have_any_name(tmp_path: Path, name: str) -> None:
    path = lines(tmp_path, *({"q": "x", "": 1, "a.b": 2, "self": 3, name: one} for one in (["a"], ["b"])))
    inputs, prompts = planned(path, TASK | {"prompt": f"{{{{ {name}[0] }}}}", "target": f"{{{{ {name} }}}}"})
    assert [prompts.target(user_row(inputs[number])) for number in (0, 1)] == [["a"], ["b"]]
    assert [prompts.request(inputs[number], 0).prompt for number in (0, 1)] == ["a", "b"]
    with pytest.raises(ConfigError, match=r"task\.prompt: self is a word of jinja2's own, .* rename it"):
        make_plan("eval", config_of(path, TASK | {"prompt": "{{ self }}", "target": "x"}))


def test_rows_without_columns_are_rows(tmp_path: Path) -> None:
    inputs, prompts = planned(lines(tmp_path, {}, {}, {}), TASK | {"prompt": "{{ index }}", "target": "{{ id }}"})
    assert [prompts.request(inputs[number], 0).prompt for number in range(3)] == ["0", "1", "2"]


@pytest.mark.parametrize("own", [[False, True], [0.0, 1.0], ["0", "1"], [1, 0], [None, None]])
def test_a_column_index_of_the_users_own_is_kept(tmp_path: Path, own: list[Any]) -> None:
    inputs, _ = planned(lines(tmp_path, *({"q": "x", "gold": "y", "index": one} for one in own)))
    shown = [user_row(inputs[number])["index"] for number in (0, 1)]
    assert [(type(one), one) for one in shown] == [(type(one), one) for one in own]


@pytest.mark.parametrize("name", ["data.jsonl", "data.json"])
@pytest.mark.parametrize("depth", [300, 2_000, 100_000])
def test_deep_json_is_refused_by_line(tmp_path: Path, name: str, depth: int) -> None:
    path = tmp_path / name
    row = f'{{"q": 1, "gold": {"[" * depth}{"]" * depth}}}'
    path.write_text(f'{{"q": 1}}\n{row}\n' if name == "data.jsonl" else f"[{row}]")
    with pytest.raises(DataError, match=r"data\.json(l:2)?: .*(nested more than 256 deep|nested too deep)"):
        planned(path)
    deep = lines(tmp_path, {"q": 1, "gold": 1, "meta": json.loads("[" * 250 + "]" * 250)})
    assert planned(deep)[0][0]["meta"] == json.loads("[" * 250 + "]" * 250)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1, "a"], r"column 'id' has texts beside other ids \(row 1: 'a', row 0: 1\)"),
        ([7, "7"], r"column 'id' has texts beside other ids"),
        (["a", "a"], r"id 'a' stands twice in column 'id': rows 0 and 1"),
        ([2**70, 2**70], r"id '1180591620717411303424' stands twice"),
    ],
)
def test_ids_are_told_when_planning(tmp_path: Path, ids: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as told:
        planned(lines(tmp_path, *({"id": one, "q": "x", "gold": "y"} for one in ids)))
    assert told.value.exit_code == 2


def test_long_integers_are_ids_and_stay_integers(tmp_path: Path) -> None:
    inputs, _ = planned(lines(tmp_path, *({"id": one, "q": "x", "gold": "y"} for one in (2**70, 2**71))))
    assert inputs.ids(0, 2) == [str(2**70), str(2**71)]
    assert user_row(inputs[0])["id"] == 2**70


@pytest.mark.parametrize(("name", "content"), [("d.jsonl", ""), ("d.csv", "q,gold\n"), ("d.json", "[]")])
def test_data_without_rows_is_told_when_planning(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=r"data set .* has no rows"):
        planned(tmp_path / name)
