"""The rows that are too long for the model, counted when planning as transformers counts them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hpcjobs.config import Config, GenerationConfig
from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.errors import ConfigError
from hpcjobs.plan import prompt_lengths
from hpcjobs.plan.prompt_lengths import length_notes
from hpcjobs.requests import Pair, Request, Row, Truncate
from tests.toy_tokenizers import TEMPLATES, TOKENIZERS, toy_tokenizer

pytestmark = pytest.mark.model
POSITIONS, NEW = 24, 5
SENTENCE = "The fox is was on 7 in Paris  at no\n of and yes A B naïve 日本 true lazy dog"
WORDS = SENTENCE.split(" ")
TEXTS = [" ".join((WORDS * 20)[n : n + count]) for n in range(6) for count in [*range(1, 24), 300]]


def model(folder: Path, name: str = "byte_bpe_bos", positions: int | None = POSITIONS) -> Path:
    """A folder with what a plan reads of a model."""
    tokenizer = toy_tokenizer(name)
    tokenizer.save_pretrained(folder)
    config = {"model_type": "llama"} | ({"max_position_embeddings": positions} if positions else {})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def config_of(folder: Path, **task: Any) -> Config:
    return validate(Layer({"model": {"name": str(folder)}, "task": {"generation": {"max_new_tokens": NEW}, **task}}))


def notes(config: Config, requests: list[Request]) -> list[str]:
    table = pa.table({"n": range(len(requests))})

    def request_of(row: Row) -> Request:
        n = row["n"]
        assert isinstance(n, int)
        return requests[n]

    work = np.array([len(str(one.prompt)) for one in requests], np.int64)
    return length_notes(config, table, work, request_of)


def said(count: int, rows: int, ids: str, then: str) -> str:
    return f"the prompts of {count} of {rows} rows are too long for the model's {POSITIONS} positions ({ids}): {then}"


CUT, ERROR = "their beginnings are cut off", "they end in errors; task.truncate: left cuts them"


@pytest.mark.parametrize(
    ("truncate", "most"), [("left", POSITIONS - NEW), (None, POSITIONS - 1), ("error", POSITIONS - 1)]
)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_prompts_are_as_long_as_transformers_says(
    name: str, truncate: Truncate | None, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_lengths, "_IDS_SHOWN", 1000)
    texts = [*TEXTS, *("<s>" + text for text in TEXTS)]
    tokenizer, begun = toy_tokenizer(name), toy_tokenizer(name).bos_token == "<s>"
    counts = [len(tokenizer(t, add_special_tokens=not (begun and t[:3] == "<s>")).input_ids) for t in texts]
    assert {most, most + 1} <= set(counts)
    ids = ", ".join(repr(str(n)) for n, count in enumerate(counts) if count > most)
    requests = [Request(index=n, id=str(n), prompt=text, truncate=truncate) for n, text in enumerate(texts)]
    then = CUT if truncate == "left" else ERROR
    right = said(ids.count("'") // 2, len(texts), ids, then)
    assert notes(config_of(model(tmp_path, name)), requests) == [right]


@pytest.mark.parametrize(("truncate", "then"), [(None, CUT), ("left", CUT), ("error", ERROR)])
@pytest.mark.parametrize("name", ["byte_bpe", "byte_bpe_bos", "unigram_always_bos"])
def test_options_count_but_for_their_last_token(
    name: str, truncate: Truncate | None, then: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpcjobs.engines.scoring.boundary import SpanBuilder

    monkeypatch.setattr(prompt_lengths, "_IDS_SHOWN", 1000)
    builder, long = SpanBuilder(toy_tokenizer(name), POSITIONS), list[str]()
    requests = list[Request]()
    for n, text in enumerate([*TEXTS[:23], *(["", TEXTS[9], TEXTS[22]])]):
        pairs = (Pair(text, " no"), Pair(text, f" {TEXTS[n % 9]}"))
        requests.append(Request(index=n, id=str(n), prompt=text, task="choice", pairs=pairs, truncate=truncate))
        if any(len(builder.pair(pair).inputs) > POSITIONS for pair in pairs):
            long.append(str(n))
    assert 0 < len(long) < len(requests)
    right = said(len(long), len(requests), ", ".join(map(repr, long)), then)
    assert notes(config_of(model(tmp_path, name)), requests) == [right]


@pytest.mark.parametrize("key", ["rope_parameters", "rope_scaling"])
def test_dynamic_rotary_embeddings_go_beyond_their_positions(tmp_path: Path, key: str) -> None:
    """As the engines let them; what is cut is cut to the positions, as lm_eval does."""
    folder = model(tmp_path)
    values = json.loads((folder / "config.json").read_text())
    kind = {"rope_type" if key == "rope_parameters" else "type": "dynamic", "factor": 100.0}
    (folder / "config.json").write_text(json.dumps(values | {key: kind}))
    requests = [Request(index=n, id=str(n), prompt=text) for n, text in enumerate(TEXTS)]
    assert notes(config_of(folder), requests) == []
    assert notes(config_of(folder), [replace(request, truncate="left") for request in requests]) != []


def test_chats_are_rendered_and_rows_that_fail_left_out(tmp_path: Path) -> None:
    folder = model(tmp_path)
    (folder / "chat_template.jinja").write_text(TEMPLATES["chatml"])
    tokenizer = toy_tokenizer("byte_bpe_bos")
    chats = [[{"role": "user", "content": text}] for text in TEXTS[:23]]
    template = (folder / "chat_template.jinja").read_text()
    counts = [
        len(tokenizer.apply_chat_template(c, chat_template=template, add_generation_prompt=True)["input_ids"])
        for c in chats
    ]
    long = [n for n, count in enumerate(counts) if count >= POSITIONS]
    assert 3 < len(long) < len(chats)
    requests = [Request(index=n, id=f"row {n}", prompt=chat) for n, chat in enumerate(chats)]
    requests.append(Request(index=23, id="bad", prompt=[{"role": "user"}]))
    ids = ", ".join(f"'row {n}'" for n in long[:3]) + ", ..."
    assert notes(config_of(folder), requests) == [said(len(long), 24, ids, ERROR)]


@pytest.mark.parametrize(
    ("limit", "most", "looked_at", "ids"),
    [
        ("_MOST_ROWS", 2, "2 of the 2 longest of 5", "'1', '4'"),
        ("_MOST_CHARACTERS", 767, "1 of the 1 longest of 5", "'1'"),  # of a row 16 for each position are counted
        ("_MOST_CHARACTERS", 768, "2 of the 2 longest of 5", "'1', '4'"),
        ("_MOST_CHARACTERS", 1, "1 of the 1 longest of 5", "'1'"),
    ],
)
def test_the_longest_rows_are_looked_at(
    limit: str, most: int, looked_at: str, ids: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_lengths, limit, most)
    texts = ["no", TEXTS[23], "A", TEXTS[22], TEXTS[23]]
    requests = [Request(index=n, id=str(n), prompt=text) for n, text in enumerate(texts)]
    (note,) = notes(config_of(model(tmp_path)), requests)
    assert note.startswith(f"the prompts of {looked_at} rows are too long for the model's 24 positions ({ids})")


def test_nothing_is_said_of_what_fits_or_of_models_that_are_not_here(tmp_path: Path) -> None:
    long = [Request(index=0, id="0", prompt=TEXTS[23])]
    assert notes(config_of(model(tmp_path / "a")), [Request(index=0, id="0", prompt="The fox")]) == []
    assert notes(config_of(model(tmp_path / "b", positions=None)), long) == []
    assert notes(config_of(model(tmp_path / "c")).model_copy(update={"model": Config().model}), long) == []
    bare = model(tmp_path / "d")
    (bare / "tokenizer.json").unlink()
    assert notes(config_of(bare), long) == []
    text = Request(index=0, id="0", prompt=TEXTS[23], task="perplexity", truncate="left")
    assert notes(config_of(model(tmp_path / "e")), [text]) == [], "a text is scored in windows"


@pytest.mark.parametrize("new", [POSITIONS - 1, POSITIONS])
def test_new_tokens_that_leave_no_room_are_refused(new: int, tmp_path: Path) -> None:
    request = Request(index=0, id="0", prompt="The", truncate="left", generation=GenerationConfig(max_new_tokens=new))
    if new < POSITIONS:
        assert notes(config_of(model(tmp_path)), [request]) == [said(1, 1, "'0'", CUT)]
        return
    with pytest.raises(
        ConfigError, match=r"^24 new tokens leave no room for a prompt in the model's 24 positions: set"
    ):
        notes(config_of(model(tmp_path)), [request])
