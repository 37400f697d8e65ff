"""Solved examples before a prompt: which rows, in which form, and never the sample itself."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from hpcjobs.config import Config, DataConfig, FewShotConfig
from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.errors import ConfigError, DataError
from hpcjobs.plan.eval import make_plan
from hpcjobs.run_folder.inputs import Inputs, user_columns
from hpcjobs.tasks.few_shot import Pool, TableRows, is_own, pool_table, read_pool
from hpcjobs.tasks.prompts import Prompts
from hpcjobs.tasks.seeds import sample_seed

ROWS: list[dict[str, Any]] = [
    {"index": n, "id": f"r{n}", "q": f"q{n}", "a": f"a{n}", "kind": ("even", "odd")[n % 2]} for n in range(12)
]


def pool_of(rows: list[dict[str, Any]] = ROWS, own: bool = True, **shots: Any) -> Pool:
    return Pool(FewShotConfig(**shots), TableRows(pa.Table.from_pylist(rows)), own)


def ids(pool: Pool, number: int) -> list[str]:
    return [str(row["id"]) for row in pool.examples(ROWS[number], ROWS[number]["id"])]


def prompts_of(rows: list[dict[str, Any]] = ROWS, **task: Any) -> Prompts:
    checked = validate(Layer({"task": {"target": "{{ a }}"} | task})).task
    return Prompts(checked, list(ROWS[0]), Pool(checked.few_shot, TableRows(pa.Table.from_pylist(rows)), own=True))


def test_the_first_rows_are_the_same_for_all_but_never_the_sample_itself() -> None:
    pool = pool_of(k=3)
    assert [ids(pool, n) for n in (0, 2, 9)] == [["r1", "r2", "r3"], ["r0", "r1", "r3"], ["r0", "r1", "r2"]]
    assert ids(pool_of(k=3, own=False), 0) == ["r0", "r1", "r2"]


def test_anybody_can_draw_the_same_examples() -> None:
    """One more than asked for is drawn by seed and id; then the row itself, and what is too much, is passed over.

    A run that goes on under a later version asks with the same examples.
    """
    pool = pool_of(k=3, sampling="random", seed=7)
    assert sample_seed(7, "r4") == int(hashlib.sha256(b"7\0r4").hexdigest()[:14], 16)
    for number in range(12):
        name = f"r{number}"
        drawn = random.Random(sample_seed(7, name)).sample(range(12), 4)
        assert ids(pool, number) == [f"r{n}" for n in drawn if n != number][:3]
    many = [{"id": f"r{n}", "q": f"q{n}", "a": "a"} for n in range(50)]
    drawn = random.Random(sample_seed(7, "other")).sample(range(50), 5)
    shown = pool_of(many, k=4, sampling="random", seed=7).examples({"q": "x", "a": "y"}, "other")
    assert [row["q"] for row in shown] == [f"q{n}" for n in drawn[:4]]


def test_a_draw_depends_on_seed_and_sample_alone() -> None:
    pool = pool_of(k=4, sampling="random")
    drawn = {n: ids(pool, n) for n in range(12)}
    assert {n: ids(pool_of(k=4, sampling="random"), n) for n in reversed(range(12))} == drawn
    assert all(len(set(names)) == 4 and f"r{n}" not in names for n, names in drawn.items())
    assert len({tuple(names) for names in drawn.values()}) > 6
    assert ids(pool_of(k=4, sampling="random", seed=1), 0) != drawn[0]


def test_only_rows_of_the_same_kind() -> None:
    for sampling in ("first", "random"):
        pool = pool_of(k=3, same="kind", sampling=sampling)
        for number in range(12):
            assert {int(name[1:]) % 2 for name in ids(pool, number)} == {number % 2}


def test_too_few_rows_are_an_error_that_says_how_many() -> None:
    with pytest.raises(ValueError, match="k is 12, and there are 11 other rows"):
        list(pool_of(k=12).examples(ROWS[0], "r0"))
    with pytest.raises(ValueError, match="k is 6, and there are 5 other rows with kind = 'odd'"):
        list(pool_of(k=6, same="kind").examples(ROWS[1], "r1"))
    with pytest.raises(ConfigError, match=r"few_shot.same: 'knd' is no column \(did you mean 'kind'"):
        pool_of(k=1, same="knd")


@pytest.mark.parametrize(("answer", "said"), [([], "gives an empty list"), (None, "task.target gives null for it")])
def test_an_example_without_an_answer_is_named(answer: Any, said: str) -> None:
    rows = [{"index": n, "id": f"r{n}", "q": "q", "a": answer} for n in range(2)]
    rows[1]["q"] = "other"
    with pytest.raises(ValueError, match=rf"the example of task\.few_shot with id 'r\d': it has no answer: .*{said}"):
        prompts_of(rows, prompt="{{ q }}", few_shot={"k": 1}).request(rows[1], 0)


def test_a_text_begins_with_description_and_examples() -> None:
    prompts = prompts_of(prompt="Q: {{ q }}\nA:", description="About {{ kind }} ones.\n\n", few_shot={"k": 2})
    request = prompts.request(ROWS[4], 0)
    assert request.prompt == "About even ones.\n\nQ: q0\nA: a0\n\nQ: q1\nA: a1\n\nQ: q4\nA:"
    other = prompts_of(prompt="{{ q }}=", delimiter="", few_shot={"k": 1, "separator": "; "})
    assert other.request(ROWS[4], 0).prompt == "q0=a0; q4="


def test_a_chat_gets_its_examples_as_turns() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "{{ q }}"}]
    prompts = prompts_of(messages=messages, description="Lead.", few_shot={"k": 1})
    assert prompts.request(ROWS[3], 0).prompt == [
        {"role": "system", "content": "Lead.\n\nBe brief."},
        {"role": "user", "content": "q0"}, {"role": "assistant", "content": "a0"},
        {"role": "user", "content": "q3"},
    ]  # fmt: skip


def test_an_example_of_multiple_choice_shows_its_right_option() -> None:
    rows = [row | {"options": ["yes", "no"], "gold": n % 2} for n, row in enumerate(ROWS)]
    checked = validate(Layer({"task": {
        "type": "choice", "prompt": "{{ q }}:", "choices": "{{ options }}", "target": "{{ gold }}",
        "few_shot": {"k": 2},
    }})).task  # fmt: skip
    pool = Pool(checked.few_shot, TableRows(pa.Table.from_pylist(rows)), own=True)
    request = Prompts(checked, list(rows[0]), pool).request(rows[5], 0)
    assert [(pair.context, pair.continuation) for pair in request.pairs] == [
        ("q0: yes\n\nq1: no\n\nq5:", " yes"), ("q0: yes\n\nq1: no\n\nq5:", " no"),
    ]  # fmt: skip


def config_of(tmp_path: Path, **shots: Any) -> Config:
    lines = [json.dumps(row | {"id": f"s{n}"}) + "\n" for n, row in enumerate(ROWS)]
    (tmp_path / "shots.jsonl").write_text("".join(lines))
    task = {"prompt": "{{ q }}", "target": "{{ a }}", "few_shot": shots}
    return validate(Layer({"data": {"name": "x.jsonl"}, "task": task}))


def test_the_plan_keeps_no_more_rows_than_are_needed(tmp_path: Path) -> None:
    table, path = pa.Table.from_pylist(ROWS), str(tmp_path / "shots.jsonl")
    assert pool_table(config_of(tmp_path), table) is None
    first = pool_table(config_of(tmp_path, k=2, data=path), table)
    assert first is not None
    assert first.column("id").to_pylist() == ["s0", "s1", "s2"]  # one more: a sample that is among them skips itself
    each = pool_table(config_of(tmp_path, k=1, data=path, same="kind"), table)
    assert each is not None
    assert each.column("id").to_pylist() == ["s0", "s1", "s2", "s3"]
    drawn = pool_table(config_of(tmp_path, k=2, data=path, sampling="random"), table)
    assert drawn is not None
    assert len(drawn) == 12
    assert pool_table(config_of(tmp_path, k=2, sampling="random"), table) is None  # inputs/data.arrow has them all
    assert is_own(FewShotConfig(k=1))
    assert not is_own(FewShotConfig(k=1, split="train"))


def test_a_pool_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"task\.few_shot\.data: data file .*no\.jsonl does not exist"):
        pool_table(config_of(tmp_path, k=1, data=str(tmp_path / "no.jsonl")), pa.Table.from_pylist(ROWS))
    with pytest.raises(ConfigError, match=r"needs task\.target"):
        Prompts(validate(Layer({"task": {"prompt": "{{ q }}", "few_shot": {"k": 1}}})).task, ["q"])


def test_the_hub_name_of_a_pool_is_the_datas_own_where_only_a_split_is_named(tmp_path: Path) -> None:
    import datasets

    folder = tmp_path / "set"
    splits = {"train": datasets.Dataset.from_list(ROWS[:6]), "test": datasets.Dataset.from_list(ROWS[6:])}
    datasets.DatasetDict(splits).save_to_disk(str(folder))
    task = {"prompt": "{{ q }}", "target": "{{ a }}", "few_shot": {"k": 2, "split": "train"}}
    config = validate(Layer({"data": {"name": str(folder), "split": "test"}, "task": task}))
    table = pool_table(config, pa.Table.from_pylist(ROWS[6:]))
    assert table is not None
    assert table.column("id").to_pylist() == ["r0", "r1", "r2"]
    assert DataConfig(name=str(folder)).split is None


QUESTIONS = [{"q": f"item {n}?", "a": f"code-{n * 7}", "note": n} for n in range(6)]
ASKED = {"prompt": "Q: {{ q }}\nA:", "target": "{{ a }}"}


def own_examples(tmp_path: Path, data: dict[str, Any], shots: dict[str, Any]) -> list[bool]:
    """For each sample of a plan, whether its own question stands solved above it."""
    config = validate(Layer({
        "model": {"engine": "dummy"}, "data": data, "task": ASKED | {"few_shot": shots, "metrics": ["exact_match"]},
    }))  # fmt: skip
    draft = make_plan("eval", config, tmp_path / "run")
    draft.write()
    inputs, task = Inputs(draft.paths.data), config.task
    prompts = Prompts(task, user_columns(inputs.columns), read_pool(draft.paths, task.few_shot))
    asked = [str(prompts.request(inputs[n], 0).prompt).split("\n\n") for n in range(len(inputs))]
    assert {len(parts) for parts in asked} == {task.few_shot.k + 1}
    return [any(shot.startswith(parts[-1]) for shot in parts[:-1]) for parts in asked]


@pytest.mark.parametrize("sampling", ["first", "random"])
@pytest.mark.parametrize("name", ["the same file", "a copy", "shuffled, other columns", "with an id", "twice"])
def test_no_sample_is_its_own_example_whatever_the_rows_are_called(tmp_path: Path, name: str, sampling: str) -> None:
    rows = {
        "the same file": QUESTIONS, "a copy": QUESTIONS, "twice": [QUESTIONS[0]] * 3 + QUESTIONS,
        "shuffled, other columns": [{"a": row["a"], "q": row["q"], "hint": "?"} for row in QUESTIONS[::-1]],
        "with an id": [row | {"id": f"x{n}"} for n, row in enumerate(QUESTIONS)],
    }[name]  # fmt: skip
    for file, content in (("asked.jsonl", QUESTIONS), ("shots.jsonl", rows)):
        (tmp_path / file).write_text("".join(json.dumps(row) + "\n" for row in content))
    source = "asked.jsonl" if name == "the same file" else "shots.jsonl"
    shots = {"k": 5, "sampling": sampling, "data": str(tmp_path / source)}
    assert own_examples(tmp_path, {"name": str(tmp_path / "asked.jsonl")}, shots) == [False] * 6


@pytest.mark.parametrize("sampling", ["first", "random"])
def test_no_sample_is_its_own_example_in_the_split_that_is_asked(tmp_path: Path, sampling: str) -> None:
    import datasets

    datasets.DatasetDict({"test": datasets.Dataset.from_list(QUESTIONS)}).save_to_disk(str(tmp_path / "set"))
    data = {"name": str(tmp_path / "set"), "split": "test"}
    assert own_examples(tmp_path, data, {"k": 2, "split": "test", "sampling": sampling}) == [False] * 6


def test_a_row_that_stands_twice_in_the_data_set_is_no_example_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS[:3] * 2))
    assert own_examples(tmp_path, {"name": str(path)}, {"k": 3}) == [False] * 6
    assert own_examples(tmp_path / "b", {"name": str(path)}, {"k": 4, "sampling": "random"}) == [False] * 6


def test_examples_in_a_csv_file_have_the_delimiter_of_the_data(tmp_path: Path) -> None:
    for name, mark in (("d.csv", ";"), ("f.csv", ";")):
        (tmp_path / name).write_text(f"q{mark}a\n{name}{mark}1\n")
    (tmp_path / "f.jsonl").write_text('{"q": "of jsonl", "a": "1"}\n')
    for few, shown in (("f.csv", "f.csv"), ("f.jsonl", "of jsonl")):
        values = {
            "model": {"engine": "dummy"}, "data": {"name": str(tmp_path / "d.csv"), "delimiter": ";"},
            "task": {
                "prompt": "{{ q }}", "target": "{{ a }}", "metrics": ["exact_match"],
                "few_shot": {"k": 1, "data": str(tmp_path / few)},
            },
        }  # fmt: skip
        draft = make_plan("eval", validate(Layer(values)), tmp_path / "run")
        assert draft.pool is not None
        assert draft.pool.column("q").to_pylist() == [shown]


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ({"prompt": "{{ 6 // (n | int) }}"}, "ZeroDivisionError: integer division"),
        ({"prompt": "{{ q }}", "target": "{{ [a, 1 // (n | int)] | last }}"}, "ZeroDivisionError"),
        ({"messages": [{"role": "user", "content": "{{ n.x.y }}"}]}, "UndefinedError: 'str object' has no"),
    ],
)
def test_an_example_that_fails_is_blamed_and_not_the_row(tmp_path: Path, task: dict[str, Any], said: str) -> None:
    good = {"q": "good", "a": "1", "n": {"x": {"y": 1}} if "messages" in task else "1"}
    (tmp_path / "d.jsonl").write_text(json.dumps({"id": "mine"} | good) + "\n")
    (tmp_path / "f.jsonl").write_text(json.dumps({"id": "bad", "q": "q", "a": "2", "n": "0"}) + "\n")
    few_shot = {"k": 1, "data": str(tmp_path / "f.jsonl")}
    values = {
        "model": {"engine": "dummy"}, "data": {"name": str(tmp_path / "d.jsonl")},
        "task": {"target": "{{ a }}", "metrics": ["exact_match"], "few_shot": few_shot} | task,
    }  # fmt: skip
    with pytest.raises(DataError) as error:
        make_plan("eval", validate(Layer(values)), tmp_path / "run")
    assert f"the task's templates fail: the example of task.few_shot with id 'bad': {said}" in str(error.value)
    assert "mine" not in str(error.value)
