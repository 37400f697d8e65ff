"""Chat templates rendered when planning, against transformers; what they refuse is known before anything is queued."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from hpcjobs.assets import ASSETS
from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.errors import ConfigError
from hpcjobs.plan.chat_template import chat_renderer, check_chats, check_first_chats
from hpcjobs.requests import Chat
from tests.fake_slurm import Shell
from tests.toy_tokenizers import SPECIAL, TEMPLATES, toy_tokenizer

CHATS: list[Chat] = [
    [{"role": "user", "content": "The fox"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " a\nb "}],
    [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y 🙂"}, {"role": "user", "content": "日本"}],
]
OTHERS = {
    "loop": "{% for m in messages %}{% if m.role == 'nobody' %}{% continue %}{% endif %}{{ m.content }}{% endfor %}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "json": "{{ messages | tojson(indent=1) }}{{ bos_token }}{{ eos_token }}",
    "year": "{{ strftime_now('%Y') }}{% for m in messages %}{{ m.content }}{% endfor %}",
}


@pytest.mark.model
@pytest.mark.parametrize("chat", CHATS, ids=["one turn", "a system turn", "three turns"])
@pytest.mark.parametrize("name", [*TEMPLATES, *OTHERS])
def test_the_text_is_that_of_transformers(name: str, chat: Chat, tmp_path: Path) -> None:
    tokenizer = copy.deepcopy(toy_tokenizer("byte_bpe_bos"))
    tokenizer.chat_template = (TEMPLATES | OTHERS)[name]
    tokenizer.save_pretrained(tmp_path)
    theirs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert chat_renderer(tmp_path)(chat) == theirs
    check_chats(tmp_path, [chat])


@pytest.mark.model
@pytest.mark.parametrize("extra", [{"image_token": "<|user|>"}, ["<|user|>"]], ids=["named", "listed"])
def test_the_files_of_earlier_versions_of_transformers_are_read(tmp_path: Path, extra: object) -> None:
    """`added_tokens_decoder` stands in the tokenizer_config.json of nearly every model on the hub."""
    from transformers import AutoTokenizer

    tokenizer = copy.deepcopy(toy_tokenizer("byte_bpe_bos"))
    tokenizer.chat_template = "{{ bos_token }}|{{ eos_token }}|{{ image_token }}|{{ messages[0].content }}"
    tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    added = {str(number): {"content": text, **flags} for number, text in enumerate(SPECIAL)}
    values = json.loads(path.read_text()) | {"added_tokens_decoder": added, "extra_special_tokens": extra}
    path.write_text(json.dumps(values | {"bos_token": {"__type": "AddedToken", "content": "<s>", **flags}}))
    theirs = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(CHATS[0], tokenize=False)
    assert theirs == f"<s>|</s>|{'<|user|>' if isinstance(extra, dict) else ''}|The fox"
    assert chat_renderer(tmp_path)(CHATS[0]) == theirs


def with_template(folder: Path, template: str | None) -> str:
    """A copy of the tiny model with another template, or none."""
    shutil.copytree(ASSETS / "tiny", folder)
    path = folder / "tokenizer_config.json"
    values = json.loads(path.read_text())
    values.pop("chat_template", None)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    path.write_text(json.dumps(values | ({} if template is None else {"chat_template": template})))
    return str(folder)


NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{{ m.content }}{% endfor %}"
)


def test_a_model_without_a_template_is_refused_when_planning(tmp_path: Path) -> None:
    with_template(tmp_path / "base", None)
    with pytest.raises(ConfigError, match=r"has no chat template.*set task\.prompt to a text"):
        check_chats(tmp_path / "base", CHATS[:1])
    check_chats(tmp_path / "base", [])


def test_a_template_that_takes_no_system_turn_says_so(tmp_path: Path) -> None:
    with_template(tmp_path / "m", NO_SYSTEM)
    check_chats(tmp_path / "m", CHATS[:1])
    with pytest.raises(ConfigError, match="refuses the first rows: System role not supported; if it takes no system"):
        check_chats(tmp_path / "m", CHATS[1:2])


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize("job", ["eval", "train"])
def test_submit_ends_with_2_and_leaves_nothing(shell: Shell, job: str) -> None:
    model = with_template(shell.home / "base", None)
    said = shell.run("submit", job, "--model", model, "--executor", "local", "--name", "n", "--yes")
    assert said.code == 2
    assert "has no chat template" in said.message
    assert not (shell.runs / "n").exists()


@pytest.mark.parametrize("dated", [True, False])
def test_a_template_that_writes_the_date_is_told(tmp_path: Path, dated: bool) -> None:
    template = "{{ strftime_now('%d %b') }}" * dated + "{% for m in messages %}{{ m.content }}{% endfor %}"
    config = validate(Layer({"model": {"name": with_template(tmp_path / "m", template)}}))
    table = pa.table({"index": [0], "id": ["a"]})
    notes = check_first_chats(config, table, lambda row: CHATS[0])
    assert notes == ["the chat template writes the day's date: on another day the prompts are others"] * dated
    assert check_first_chats(config, table, lambda row: None) == []
