"""Chats with a description and few-shot examples, against lm_eval's own; turns stay where they are."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from hpcjobs.config import TaskConfig
from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.tasks.column_types import rows_table
from hpcjobs.tasks.few_shot import Pool, TableRows
from hpcjobs.tasks.prompts import Prompts

ROWS: list[dict[str, Any]] = [{"index": n, "id": f"r{n}", "q": f" q{n}", "a": f"a{n}\n"} for n in range(5)]


def task_of(**task: Any) -> TaskConfig:
    return validate(Layer({"task": task})).task


def asked(rows: list[dict[str, Any]], number: int, **task: Any) -> Any:
    checked = task_of(**task)
    pool = Pool(checked.few_shot, TableRows(rows_table(rows, str)), own=True) if checked.few_shot.k else None
    return Prompts(checked, list(rows[0]), pool).request(rows[number], 0).prompt


@pytest.mark.parametrize("shots", [0, 2])
@pytest.mark.parametrize("system", [None, "Be brief.", "Be brief.\n"])
@pytest.mark.parametrize("description", [None, "About q.", " About q.\n\n", "\tAbout q. "])
def test_a_description_and_examples_make_the_turns_that_lm_eval_makes(
    tmp_path: Path, description: str | None, system: str | None, shots: int
) -> None:
    """Its `system_instruction` stands before its `description`, as ours does before the chat's own system turn."""
    chats = list[Any]()
    theirs = lm_eval_task(tmp_path, description, shots)
    theirs.fewshot_context(
        ROWS[4], shots, system_instruction=system, apply_chat_template=True, fewshot_as_multiturn=True,
        chat_template=taken(chats),
    )  # fmt: skip
    own = [{"role": "system", "content": description}] if description and system else []
    ours = asked(
        ROWS, 4, messages=[*own, {"role": "user", "content": "{{ q }}"}], target="{{ a }}", few_shot={"k": shots},
        description=system or description,
    )  # fmt: skip
    assert ours == [dict(turn) for turn in chats[0]]


def taken(chats: list[Any]) -> Callable[..., str]:
    """A chat template that keeps the chats."""

    def render(chat: Any, **how: Any) -> str:
        chats.append(chat)
        return ""

    return render


def lm_eval_task(folder: Path, description: str | None, shots: int) -> Any:
    from lm_eval.api.task import ConfigurableTask

    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    config = {
        "task": "t", "dataset_path": "json", "dataset_kwargs": {"data_files": str(data), "cache_dir": str(folder)},
        "output_type": "generate_until", "test_split": "train", "fewshot_split": "train", "num_fewshot": shots,
        "doc_to_text": "{{ q }}", "doc_to_target": "{{ a }}", "description": description or "",
        "fewshot_config": {"sampler": "first_n"},
    }  # fmt: skip
    return ConfigurableTask(config=config)


USER, ASSISTANT = {"role": "user", "content": "a", "name": "ann"}, {"role": "assistant", "content": "b"}
SYSTEM = {"role": "system", "content": "Be brief.", "name": "boss"}
LATER = {"role": "system", "content": "Now at length."}


@pytest.mark.parametrize(
    ("chat", "made"),
    [
        ([USER], [{"role": "system", "content": " D.\n"}, USER]),
        ([SYSTEM, USER], [{**SYSTEM, "content": " D.\nBe brief."}, USER]),
        ([SYSTEM, LATER, USER], [{**SYSTEM, "content": " D.\nBe brief."}, LATER, USER]),
        ([USER, ASSISTANT, LATER, USER], [{"role": "system", "content": " D.\n"}, USER, ASSISTANT, LATER, USER]),
        ([{"role": "system", "content": None}, USER], [{"role": "system", "content": " D.\n"}, USER]),
        ([{"role": "developer", "content": "x"}, USER], [
            {"role": "system", "content": " D.\n"}, {"role": "developer", "content": "x"}, USER
        ]),
    ],
)  # fmt: skip
def test_turns_stay_where_they_are(chat: list[dict[str, Any]], made: list[dict[str, Any]]) -> None:
    row = {"index": 0, "id": "r", "messages": chat}
    assert asked([row], 0, description=" D.\n") == made


def test_an_example_keeps_its_turns_but_for_the_first_system_turns() -> None:
    shot, own = [SYSTEM, USER, ASSISTANT, LATER, USER], [SYSTEM, USER, ASSISTANT, LATER, {**USER, "content": "?"}]
    rows = [{"index": n, "id": f"r{n}", "messages": chat, "gold": f"g{n}"} for n, chat in enumerate((shot, own))]
    made = asked(rows, 1, target="{{ gold }}", few_shot={"k": 1})
    assert made == [SYSTEM, USER, ASSISTANT, LATER, USER, {"role": "assistant", "content": "g0"}, *own[1:]]


def test_an_example_with_tools_or_documents_of_its_own_is_an_error() -> None:
    rows: list[dict[str, Any]] = [
        {"index": n, "id": f"r{n}", "messages": [USER], "gold": f"g{n}", "documents": [{"text": text}]}
        for n, text in enumerate(("same", "same", "other"))
    ]
    assert len(asked(rows, 1, target="{{ gold }}", few_shot={"k": 1})) == 3
    with pytest.raises(ValueError, match=r"id .r0.: it has other documents than the row"):
        asked(rows, 2, target="{{ gold }}", few_shot={"k": 1})


def test_texts_and_chats_are_never_mixed() -> None:
    pool = Pool(
        task_of(target="{{ gold }}", few_shot={"k": 1}).few_shot,
        TableRows(pa.table({"id": ["t"], "prompt": ["text"], "gold": ["g"]})), own=False,
    )  # fmt: skip
    prompts = Prompts(task_of(target="{{ gold }}", few_shot={"k": 1}), ["prompt", "gold"], pool)
    assert prompts.prompt({"prompt": "x", "gold": "y"}) == "text g\n\nx"
    with pytest.raises(ValueError, match=r"the example of task\.few_shot with id .*: it is a text, and the row a chat"):
        prompts.prompt({"prompt": [USER], "gold": "y"})


@pytest.mark.parametrize(
    ("value", "said"),
    [(datetime.date(2026, 1, 2), "of type date"), (Decimal("1.5"), "of type Decimal"), (b"x", "of type bytes"),
     ([("city", "Bergen")], "a map, not an object")],
)  # fmt: skip
def test_values_that_no_json_has_are_named(value: object, said: str) -> None:
    """Parquet has such; transformers writes `<date>` for them."""
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"when": value}}}]}
    prompts = Prompts(task_of(), ["messages", "documents"])
    with pytest.raises(ValueError, match=f"tool_calls of turn 1 of the chat has a value that is {said}"):
        prompts.prompt({"messages": [USER, call]})
    with pytest.raises(ValueError, match=f"column 'documents' of a row with a chat has a value that is {said}"):
        prompts.prompt({"messages": [USER], "documents": [{"text": value}]})
    assert prompts.prompt({"messages": [{**USER, "sent": value}], "documents": None}) == [{**USER, "sent": value}]
