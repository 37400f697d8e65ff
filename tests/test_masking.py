"""Secrets by their names: real texts, and what only looks like one."""

from __future__ import annotations

import pytest

from hpcjobs.masking import hide_in_words, is_secret_name, masked, reveal


@pytest.mark.parametrize("name", ["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD_2", "my_key"])
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "KEYBOARD", "HOME", "MONKEY", "PATH"])
def test_other_names(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("401 for tok-12345678 at the hub", "401 for *** at the hub"),
        ("HF_TOKEN=abcdef123 python", "HF_TOKEN=*** python"),
        ('{"WANDB_API_KEY": "0123456789"}', '{"WANDB_API_KEY": "***"}'),
        ("--api-key=abcdef123", "--api-key=***"),
        ("--api-key abcdef123", "--api-key ***"),
        ("password: hunter22", "password: ***"),
        ("https://me:hunter2@host/x", "https://***@host/x"),
        ("hf_" + "a" * 30, "***"),
        ("eos_token: <|endoftext|>, sort_key=identifier", "eos_token: <|endoftext|>, sort_key=identifier"),
        ("export HF_TOKEN=$(cat ~/.token)", "export HF_TOKEN=$(cat ~/.token)"),
        ("the password must be entered by hand", "the password must be entered by hand"),
        ("/data/models of KEY_FILE", "/data/models of KEY_FILE"),
        ("500 tokens, 0.25 s", "500 tokens, 0.25 s"),
    ],
)
def test_texts(monkeypatch: pytest.MonkeyPatch, text: str, shown: str) -> None:
    monkeypatch.setenv("HUB_TOKEN", "tok-12345678")
    monkeypatch.setenv("SHORT_KEY", "500")
    monkeypatch.setenv("FOLDER_KEY", "/tmp")
    assert masked(text) == shown


def test_words_of_a_command_are_hidden_and_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_TOKEN", "tok-12345678")
    words = ["train.py", "--hub", "tok-12345678", "--api-key", "abcdef123", "--db=https://me:pw1@host", "--lr", "1e-5"]
    kept: dict[str, str] = {}

    def keep(value: str) -> str:
        kept[f"S{len(kept)}"] = value
        return f"S{len(kept) - 1}"

    hidden = hide_in_words(words, keep)
    assert hidden == [
        "train.py", "--hub", "${secret:HUB_TOKEN}", "--api-key", "${secret:S0}", "--db=https://${secret:S1}@host",
        "--lr", "1e-5",
    ]  # fmt: skip
    assert reveal(hidden, kept | {"HUB_TOKEN": "tok-12345678"}) == words
    with pytest.raises(KeyError, match="HUB_TOKEN"):
        reveal(hidden, kept)
