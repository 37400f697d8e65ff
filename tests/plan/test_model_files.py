"""The JSON files of a model's folder: what cannot be read or used is named when planning."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hpcjobs.assets import ASSETS
from hpcjobs.config import TaskConfig
from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.connector import AccelerateConnector, ConnectorOptions
from hpcjobs.errors import ConfigError
from hpcjobs.plan.eval import make_plan
from hpcjobs.plan.model_files import check_model_files, vocabulary_notes
from hpcjobs.requests import Pair, Request
from hpcjobs.training.data.encode import Encoder
from hpcjobs.training.data.examples import Example


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    shutil.copytree(ASSETS / "tiny", made)
    return made


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        *((f"{name}.json", "{bad", "is no JSON: ") for name in ("config", "generation_config", "tokenizer_config")),
        ("tokenizer.json", "{bad", "is no JSON: "),
        *((name, "[]", "is no JSON object") for name in ("config.json", "generation_config.json", "tokenizer.json")),
        ("generation_config.json", '{"eos_token_id": "</s>"}', 'eos_token_id is "</s>", and not a token id or a list'),
        ("generation_config.json", '{"repetition_penalty": -1.0}', r"repetition_penalty is -1\.0, and not a number"),
        ("generation_config.json", '{"stop_strings": 5}', "stop_strings is 5, and not a text or a list of them"),
        ("generation_config.json", '{"eos_token_id": [1, true]}', r"eos_token_id is \[1, true\], and not"),
        ("config.json", b"\xff\xfe{", "is no JSON: "),
    ],
)
def test_what_cannot_be_read_is_named(folder: Path, name: str, content: str | bytes, said: str) -> None:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    data = folder.with_name("rows.jsonl")
    data.write_text('{"q": "1", "a": "1"}\n')
    task = {"prompt": "{{ q }}", "target": "{{ a }}", "metrics": ["exact_match"]}
    config = validate(Layer({"model": {"name": str(folder)}, "data": {"name": str(data)}, "task": task}))
    with pytest.raises(ConfigError, match=f"{name}.*{said}"):
        make_plan("eval", config, folder.with_name("run"))


def test_what_ships_and_null_values_are_fine(folder: Path) -> None:
    values = json.loads((folder / "generation_config.json").read_text())
    named = {"eos_token_id": [1, 2], "stop_strings": None, "repetition_penalty": 1.1, "min_length": 0}
    (folder / "generation_config.json").write_text(json.dumps(values | named))
    check_model_files(folder)
    assert vocabulary_notes(folder) == []
    assert vocabulary_notes(None) == []


@pytest.fixture
def larger(folder: Path) -> Path:
    """The tokenizer has two tokens that the model has no embeddings for."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    known = json.loads((folder / "config.json").read_text())["vocab_size"]
    tokenizer.add_tokens([f"<pad{n}>" for n in range(known - len(tokenizer))] + ["<extra1>", "hello"])
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.model
@pytest.mark.parametrize("engine", ["loop", "generate"])
def test_a_token_without_embedding_is_that_samples_error(larger: Path, engine: str) -> None:
    [note] = vocabulary_notes(larger)
    assert note.startswith("2 tokens of the tokenizer are beyond the model's ")
    assert "('<extra1>', 'hello')" in note
    asked = [Request(index=n, id=str(n), prompt=text, seed=0) for n, text in enumerate(("1", "say hello", "2"))]
    connector = AccelerateConnector(str(larger), options=ConnectorOptions(engine=engine))
    made = {one.index: one for one in connector.engine(TaskConfig().generation, "generate").stream(iter(asked))}
    assert [made[n].error is None for n in range(3)] == [True, False, True]
    assert made[1].error
    assert made[1].error.message.startswith("the model has no embedding for the token 'hello' (")


@pytest.mark.model
def test_nor_does_it_end_an_option_or_a_training(larger: Path) -> None:
    pairs = (Pair("1", " 2"), Pair("1", "hello"))
    asked = [
        Request(index=0, id="0", prompt="", seed=0, task="choice", pairs=pairs),
        Request(index=1, id="1", prompt="", seed=0, task="choice", pairs=(Pair("1", "2"), Pair("1", "3"))),
    ]
    connector = AccelerateConnector(str(larger))
    made = {one.index: one for one in connector.engine(TaskConfig().generation, "choice").stream(iter(asked))}
    assert [made[n].error is None for n in range(2)] == [False, True]
    known = json.loads((larger / "config.json").read_text())["vocab_size"]
    encoder = Encoder(connector.tokenizer, 64, known)
    with pytest.raises(ValueError, match="no embedding for the token 'hello'"):
        encoder.encode(Example("1", "hello"))
    assert encoder.encode(Example("1", "2")).ids
