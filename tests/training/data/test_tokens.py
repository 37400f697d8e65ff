"""The token files: what was encoded comes back, what cannot be is told, and every rank maps the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from hpcjobs.config import Config
from hpcjobs.errors import ConfigError, DataError, RendezvousError
from hpcjobs.run_folder.files import make_folder, sha256_of
from hpcjobs.run_folder.inputs import Inputs, table_parts
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.training.data.encode import Tokens
from hpcjobs.training.data.tokens import (
    TokenCount,
    TokenFacts,
    TokenFile,
    _learned,
    wait_for_tokens,
    whole_tokens,
    write_tokens,
)
from hpcjobs.training.data.validation_rows import validation_rows, validation_table


def inputs_of(folder: Path, count: int) -> Inputs:
    table = pa.table({"index": list(range(count)), "id": [f"row-{n}" for n in range(count)]})
    (folder / "data.arrow").write_bytes(b"".join(table_parts(table)))
    return Inputs(folder / "data.arrow")


def encode(row: Mapping[str, Any]) -> Tokens:
    """As many tokens as the row's number and two more; every third is learned; each fifth row is none."""
    number = row["index"]
    if number % 5 == 4:
        raise ValueError(f"row {number} has nothing")
    ids = list(range(number, 2 * number + 2))
    return Tokens(ids, [place % 3 == 2 or place == 1 for place in range(len(ids))])


def test_samples_come_back_over_batches_of_rows(tmp_path: Path) -> None:
    count = 2500
    made = write_tokens(inputs_of(tmp_path, count), encode, tmp_path / "tokens.arrow", lambda index: index % 2 == 0)
    file = TokenFile(tmp_path / "tokens.arrow")
    wanted = [n for n in range(0, count, 2) if n % 5 != 4]
    assert file.rows.tolist() == wanted
    assert made.samples == len(file) == len(wanted)
    assert made.left_out == len([n for n in range(0, count, 2) if n % 5 == 4])
    assert made.reasons[0] == "row 4 (id row-4): row 4 has nothing"
    assert len(made.reasons) == 5
    for number in (0, 1, 511, 512, 513, len(wanted) - 1):
        ids, learned = file.sample(number)
        expected = encode({"index": wanted[number]})
        assert ids.tolist() == expected.ids
        assert learned.tolist() == expected.learned
        assert file.lengths[number] == len(ids)
        assert file.targets[number] == sum(learned)
    assert made.tokens == int(file.lengths.sum())
    assert made.learned == int(file.targets.sum())


def test_learned_tokens_are_counted_in_a_part_of_a_chunk_too() -> None:
    marks = pa.array([[True, False], [True, True, True], [], [False, True]])
    assert _learned(marks).tolist() == [1, 3, 0, 1]
    assert _learned(marks.slice(1)).tolist() == [3, 0, 1]
    assert _learned(marks.slice(1, 2)).tolist() == [3, 0]


def test_rows_that_are_cut_are_counted_and_named(tmp_path: Path) -> None:
    def shortened(row: Mapping[str, Any]) -> Tokens:
        whole = encode(row)
        return Tokens(whole.ids[:8], whole.learned[:8], cut=max(0, len(whole.ids) - 8))

    made = write_tokens(inputs_of(tmp_path, 16), shortened, tmp_path / "tokens.arrow", lambda index: True)
    assert (made.samples, made.cut, made.left_out) == (13, 7, 3)
    held = TokenCount(samples=2, tokens=9, learned=4, left_out=0, cut=1, cut_rows=["row 0 (id a): 12 tokens"])
    facts = TokenFacts(train=made, validation=held, steps=10, units=13, longest=8)
    facts.write(tmp_path / "tokens.json")
    assert TokenFacts.read(tmp_path / "tokens.json") == facts
    names = "; ".join(f"row {n} (id row-{n}): {n + 2} tokens" for n in (7, 8, 10, 11, 12))
    left_out = "; ".join(f"row {n} (id row-{n}): row {n} has nothing" for n in (4, 9, 14))
    assert facts.warnings() == [
        f"3 rows were left out, with nothing to learn: {left_out}",
        f"7 rows are longer than 8 tokens (train.max_length) and were truncated: {names}; and 2 more",
        "1 validation rows are longer than 8 tokens (train.max_length) and were truncated: row 0 (id a): 12 tokens",
    ]


def test_a_file_without_samples_is_an_error_and_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of 3 rows can be learned from: row 0 \(id row-0\): no"):
        write_tokens(inputs_of(tmp_path, 3), refuse, tmp_path / "tokens.arrow", lambda index: True)
    assert [path.name for path in tmp_path.iterdir()] == ["data.arrow"]


def refuse(row: Mapping[str, Any]) -> Tokens:
    raise ValueError("no")


def test_the_facts_are_awaited_for_a_while(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    make_folder(paths.inputs)
    count = TokenCount(samples=3, tokens=30, learned=10, left_out=1, reasons=["why"])
    held = TokenCount(samples=1, tokens=9, learned=3, left_out=0)
    facts = TokenFacts(train=count, validation=held, steps=7, units=3, longest=64)
    with pytest.raises(RendezvousError, match=r"has not made the tokens within 0\.3 s"):
        wait_for_tokens(paths, "b", 0.3)
    facts.write(paths.token_facts)
    with pytest.raises(RendezvousError):
        wait_for_tokens(paths, "b", 0.3)
    facts = replace(facts, attempt="b")
    facts.write(paths.token_facts)
    assert wait_for_tokens(paths, "b", 0.3) == facts


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (0.001, 1), (0.1, 10), (0.5, 50), (0.999, 99)])
def test_a_fraction_is_held_out_by_seed_and_id_alone(fraction: float, count: int) -> None:
    ids = [f"row-{n}" for n in range(100)]
    held = validation_rows(ids, fraction, 0)
    assert len(held) == count
    assert held == validation_rows(ids, fraction, 0)
    backwards = {len(ids) - 1 - place for place in validation_rows(ids[::-1], fraction, 0)}
    assert backwards == held
    if count == 50:
        assert held != validation_rows(ids, fraction, 1)
    assert validation_rows(["only"], 0.5, 0) == set()


def test_lists_of_sliced_chunks_are_counted_from_their_own_start(tmp_path: Path) -> None:
    made = write_tokens(inputs_of(tmp_path, 1030), encode, tmp_path / "tokens.arrow", lambda index: index > 1020)
    file = TokenFile(tmp_path / "tokens.arrow")
    wanted = [n for n in range(1021, 1030) if n % 5 != 4]
    assert made.samples == len(file) == len(wanted)
    assert file.lengths.tolist() == [len(encode({"index": n}).ids) for n in wanted]


def told(paths: RunPaths, files: bool) -> TokenFacts:
    """A run with a token file of 4 samples, and what is known of it: its hash, or of an earlier version none."""
    make_folder(paths.inputs)
    made = write_tokens(inputs_of(paths.root, 4), encode, paths.tokens, lambda index: True)
    known = {paths.tokens.name: sha256_of(paths.tokens)} if files else {}
    facts = TokenFacts(train=made, validation=None, steps=1, units=4, longest=5, files=known)
    facts.write(paths.token_facts)
    return facts


@pytest.mark.parametrize("files", [True, False])
def test_tokens_of_an_earlier_start_are_taken_where_they_are_whole(tmp_path: Path, files: bool) -> None:
    paths = RunPaths(tmp_path)
    assert whole_tokens(paths, "b") is None
    facts = replace(told(paths, files), attempt="b")
    assert whole_tokens(paths, "b") == TokenFacts.read(paths.token_facts) == facts


@pytest.mark.parametrize("files", [True, False])
def test_tokens_that_are_not_what_was_written_are_made_again(
    tmp_path: Path, files: bool, caplog: pytest.LogCaptureFixture
) -> None:
    paths = RunPaths(tmp_path)
    facts = told(paths, files)
    write_tokens(inputs_of(tmp_path, 3), encode, paths.tokens, lambda index: True)
    assert whole_tokens(paths, "b") is None
    assert f"{paths.tokens} is not what was written: the tokens are made again" in caplog.text
    paths.tokens.unlink()
    assert whole_tokens(paths, "b") is None
    assert "a token file cannot be read" in caplog.text
    assert TokenFacts.read(paths.token_facts) == facts, "nobody has proved them"
    paths.token_facts.write_text("{")
    assert whole_tokens(paths, "b") is None
    assert "tokens.json cannot be read" in caplog.text


def test_of_what_is_left_out_the_first_five_are_told_in_part(tmp_path: Path) -> None:
    def long(row: Mapping[str, Any]) -> Tokens:
        if row["index"] < 6:
            raise ValueError("x" * 400)
        return Tokens([1, 2], [False, True], apart=True)

    made = write_tokens(inputs_of(tmp_path, 8), long, tmp_path / "tokens.arrow", lambda index: True)
    assert made.reasons == [f"row {n} (id row-{n}): {'x' * 400}"[:300] for n in range(5)]
    assert (made.samples, made.left_out, made.cut, made.apart, made.tokens, made.learned) == (2, 6, 0, 2, 4, 2)
    assert TokenCount(samples=1, tokens=1, learned=1, left_out=0).apart == 0
    told = TokenFacts(train=made, validation=None, steps=1, units=1, longest=9).warnings()
    assert told[0].endswith("xxx; and 1 more")
    assert told[1].startswith("2 chats have an earlier answer that later prompts hold in other tokens")
    with pytest.raises(DataError, match="none of 0 rows can be learned from: there are none"):
        write_tokens(inputs_of(tmp_path, 0), encode, tmp_path / "none.arrow", lambda index: True)


def splits(tmp_path: Path, **task: Any) -> Config:
    folder = tmp_path / "data"
    folder.mkdir(exist_ok=True)
    for name, count in (("train", 3), ("test", 2), ("empty", 0)):
        rows = [f'{{"prompt": "p{n}", "answer": "{name}"}}\n' for n in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(rows))
    values = {"data": {"name": str(folder), "max_samples": 1}, "train": {"validation_split": "test"}, "task": task}
    return Config.model_validate(values)


def test_the_rows_of_a_split_are_for_validation(tmp_path: Path) -> None:
    config = splits(tmp_path, prompt="{{prompt}}", target="{{answer}}")
    table = validation_table(config)
    assert table is not None
    assert table.column("answer").to_pylist() == ["test"] * 2, "all of them, whatever data.max_samples says"
    none = config.train.model_copy(update={"validation_split": None})
    assert validation_table(config.model_copy(update={"train": none})) is None
    with pytest.raises(ConfigError, match="nothing"):
        validation_table(splits(tmp_path, prompt="{{nothing}}", target="{{answer}}"))
    one = config.data.model_copy(update={"name": str(tmp_path / "data" / "train.jsonl")})
    with pytest.raises(ConfigError, match=r"train\.jsonl is one file, without splits; use a fraction"):
        validation_table(config.model_copy(update={"data": one}))
