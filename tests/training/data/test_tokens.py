"""The token files: what was encoded comes back, what cannot be is told, and every rank maps the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from hpcjobs.errors import DataError, RendezvousError
from hpcjobs.run_folder.files import make_folder
from hpcjobs.run_folder.inputs import Inputs, table_parts
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.training.data.encode import Tokens
from hpcjobs.training.data.tokens import TokenCount, TokenFacts, TokenFile, _learned, wait_for_tokens, write_tokens
from hpcjobs.training.data.validation_rows import validation_rows


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
