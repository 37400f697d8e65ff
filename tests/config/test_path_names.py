"""Which names of models and data can only be paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcjobs.config.path_names import is_path, near_file


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("gpt2", False), ("squad", False), ("Qwen/Qwen2.5-0.5B", False), ("openai/gsm8k", False),
        ("rows.jsonl", True), ("org/rows.csv.gz", True), ("notes.txt", True), ("w.safetensors", True),
        ("./m", True), ("../m", True), ("~/m", True), ("/m", True), ("a/b/c", True), ("here/m", True),
    ],
)  # fmt: skip
def test_a_path_is_known(name: str, path: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert is_path(name) is path


def test_a_name_in_the_same_folder_is_proposed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/rows.jsonl").touch()
    (tmp_path / "mine.jsonl").touch()
    assert near_file("sub/row.jsonl") == near_file(str(tmp_path / "sub/row.jsonl")) == " (did you mean 'rows.jsonl'?)"
    assert near_file("mien.jsonl") == " (did you mean 'mine.jsonl'?)"
    assert near_file("unifed", ["unified"]) == " (did you mean 'unified'?)"
    assert near_file("nowhere/row.jsonl") == near_file("sub/other.csv") == ""
