"""Rows, batches and held-out rows by small numbers, each worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from hpcjobs.config import TaskConfig
from hpcjobs.errors import ConfigError
from hpcjobs.training.data.collate import IGNORED
from hpcjobs.training.data.examples import Example, Examples, turns_of
from hpcjobs.training.data.order import BatchOrder, Ordering, Share, rounds
from hpcjobs.training.data.packing import packs
from hpcjobs.training.data.pieces import chat_pieces
from hpcjobs.training.data.validation_rows import validation_rows


def lengths(*sizes: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(sizes, np.int64)


def test_packing_is_best_fit_decreasing() -> None:
    """9 and 7 open rows; 3 fits best behind 7, 1 behind 9; 4 and 2 open and fill a third."""
    sizes = lengths(3, 9, 7, 1, 4, 2)
    rows = [[int(sizes[sample]) for sample in row] for row in packs(sizes, 10, seed=0)]
    assert rows == [[9, 1], [7, 3], [4, 2]]
    assert packs(lengths(12, 3), 10, seed=0) == [[0], [1]], "one that is too long is alone"
    assert packs(lengths(), 10, seed=0) == []


def test_samples_of_one_length_are_packed_in_an_order_of_the_seed() -> None:
    sizes = lengths(*[5] * 40)
    rows = [packs(sizes, 10, seed) for seed in (0, 0, 1)]
    assert rows[0] == rows[1] != rows[2]
    assert all(len(row) == 2 for row in rows[0])


def test_a_batch_is_cut_at_the_border_and_dealt_in_turn() -> None:
    sizes = lengths(5, 30, 8, 40, 20, 10, 7)
    units = [3, 1, 4, 5, 2, 6, 0]
    assert rounds(units, sizes, 3, None) == [[3, 1, 4], [5, 2, 6], [0]]
    assert rounds(units, sizes, 3, 20) == [[3, 1], [4, 5, 2], [6, 0]], "20 is not beyond 20"
    order = BatchOrder(sizes, Ordering(0, 7, border=20))
    assert order.batch(0) == units
    shares = [order.share(0, Share(rank, 2, 2)) for rank in range(2)]
    assert shares[0] == [[[3]], [[4], [2]], [[0]]]
    assert shares[1] == [[[1]], [[5], [6]], []]


def test_epochs_follow_each_other_without_a_gap() -> None:
    order = BatchOrder(lengths(*range(1, 6)), Ordering(3, 2))
    seen = [unit for step in range(5) for unit in sorted(order.samples(step))]
    assert sorted(seen) == sorted([*range(5)] * 2)
    assert [order.steps(epochs) for epochs in (0, 0.4, 0.41, 2, 2.4)] == [1, 1, 2, 5, 6]
    assert [order.epoch(step) for step in (0, 1, 5)] == [0, 0.4, 2]


def test_sorted_batches_are_whole_and_every_unit_is_there() -> None:
    sizes = lengths(*range(100, 110))
    order = BatchOrder(sizes, Ordering(0, 4, by_length=True))
    first = [sorted(order.batch(step), reverse=True) for step in range(2)]
    assert sorted(first) == [[5, 4, 3, 2], [9, 8, 7, 6]]
    assert {*order.batch(2)} >= {0, 1}


@pytest.mark.parametrize(
    ("rows", "fraction", "held"),
    [(10, 0.0, 0), (10, 0.01, 1), (10, 0.25, 2), (10, 0.26, 3), (10, 1.0, 9), (2, 0.9, 1), (1, 0.5, 0), (0, 0.5, 0)],
)
def test_a_fraction_is_held_out_and_something_is_left(rows: int, fraction: float, held: int) -> None:
    ids = [f"row-{number}" for number in range(rows)]
    found = validation_rows(ids, fraction, 7)
    assert len(found) == held
    assert found <= set(range(rows))
    again = validation_rows(ids[::-1], fraction, 7)
    assert {ids[::-1][number] for number in again} == {ids[number] for number in found}, "by id, not by place"


def test_which_rows_are_held_out_is_by_seed_and_id() -> None:
    ids = [f"row-{number}" for number in range(100)]
    assert validation_rows(ids, 0.2, 0) != validation_rows(ids, 0.2, 1)
    assert sorted(validation_rows(ids[:8], 0.25, 0)) == sorted(validation_rows(ids[:8], 0.25, 0))


def render(chat: object, asks: bool) -> str:
    assert isinstance(chat, list)
    turns = "".join(f"<{turn['role'][0]}>{turn['content']}</>" for turn in chat)
    return turns + ("<a>" if asks else "")


def pieces(*turns: tuple[str, str], context: int = 0) -> list[tuple[str, bool]]:
    chat = [{"role": role, "content": content} for role, content in turns]
    whole = render(chat, False)
    found = [(whole[one.begin : one.end], one.learned) for one in chat_pieces(chat, context, render)]
    assert "".join(text for text, _ in found) == whole
    return found


def test_of_a_chat_the_assistants_words_after_the_context_are_learned() -> None:
    turns = (("user", "q"), ("assistant", "one"), ("user", "r"), ("assistant", "two"), ("user", "s"))
    assert pieces(*turns) == [
        ("<u>q</><a>", False), ("one</>", True), ("<u>r</><a>", False), ("two</>", True), ("<u>s</>", False),
    ]  # fmt: skip
    assert pieces(*turns, context=2) == [
        ("<u>q</><a>one</><u>r</><a>", False), ("two</>", True), ("<u>s</>", False),
    ]  # fmt: skip
    assert pieces(("assistant", "one"), ("user", "q")) == [("<a>", False), ("one</>", True), ("<u>q</>", False)]
    assert pieces(("user", "q")) == [("<u>q</>", False)]


def test_a_template_that_writes_a_turn_in_another_way_later_is_refused() -> None:
    def strips(chat: object, asks: bool) -> str:
        assert isinstance(chat, list)
        return render([turn if turn is chat[-1] else {**turn, "content": "-"} for turn in chat], asks)

    chat = [{"role": role, "content": text} for role, text in (("user", "q"), ("assistant", "one"), ("user", "r"))]
    with pytest.raises(ValueError, match="writes turn 1 in another way than it asks for one"):
        list(chat_pieces(chat, 0, strips))
    with pytest.raises(ValueError, match="begins with the assistant's turn, and where its text begins cannot be told"):
        list(chat_pieces(chat[1:], 0, lambda turns, asks: render(turns, False)))


def test_what_a_row_teaches() -> None:
    columns = Examples(TaskConfig(), ["prompt", "completion"])
    assert columns.example({"prompt": "p", "completion": " c"}) == Example("p", " c")
    asked = Examples(TaskConfig(prompt="{{ q }}:", target="{{ a }}"), ["q", "a"])
    assert asked.example({"q": "x", "a": ["y", "z"]}) == Example("x:", " y")
    bare = Examples(TaskConfig(prompt="{{ q }}:", target="{{ a }}", delimiter=""), ["q", "a"])
    assert bare.example({"q": "x", "a": 0}) == Example("x:", "0")
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    example = Examples(TaskConfig(), ["messages"]).example({"messages": chat})
    assert (list(turns_of(example)), len(example.context)) == (chat, 0)
    with pytest.raises(ValueError, match="the row has no answer"):
        asked.example({"q": "x", "a": None})
    for name in ("prompt", "completion"):
        with pytest.raises(ConfigError, match=f"nothing to learn: .*; columns: {name}$"):
            Examples(TaskConfig(), [name])
    for change in ({"type": "perplexity"}, {"repeats": 2}):
        with pytest.raises(ConfigError, match="submit train learns answers"):
            Examples(TaskConfig(prompt="p").model_copy(update=change), ["q"])


def test_the_label_that_is_ignored_is_torchs() -> None:
    import torch

    assert torch.nn.CrossEntropyLoss().ignore_index == IGNORED
