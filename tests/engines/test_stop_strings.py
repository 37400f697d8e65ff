"""Stop strings against a search in the whole text at each step, with a tokenizer that is a table."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from hpcjobs.engines.stop_strings import StopStrings, cut_at_stop, stopped_text

PIECES = ["<s>", "<end>", "a", "b", "ab", "ba ", " ", "c", "<0xC3>", "<0xA9>", "<tool>", "'"]


class Table:
    """Pieces by their numbers, also of bytes; two are special, and one only to its library."""

    all_special_ids = (0, 1)
    all_special_tokens = ("<s>", "<end>")

    def __init__(self, cleans: bool = False) -> None:
        self.clean_up_tokenization_spaces, self.decoded = cleans, list[int]()

    def convert_ids_to_tokens(self, token: int) -> str:
        return PIECES[token]

    def decode(self, tokens: Sequence[int], skip_special_tokens: bool) -> str:
        self.decoded.append(len(tokens))
        kept = [PIECES[one] for one in tokens if not (skip_special_tokens and one in (0, 1, 10))]
        raw = b"".join(bytes([int(one[3:5], 16)]) if one.startswith("<0x") else one.encode() for one in kept)
        text = raw.decode("utf-8", errors="replace")
        return text.replace(" ' ", "'") if self.clean_up_tokenization_spaces else text


@pytest.mark.parametrize("cleans", [False, True])
@pytest.mark.parametrize(
    "stops", [["ab"], ["abba"], [" "], ["c", "bab"], ["é"], ["bé"], ["<end>"], ["b<end>", "cc"], ["a'b"], []]
)
def test_a_stop_string_is_met_by_the_token_that_completes_it(stops: list[str], cleans: bool) -> None:
    draw = random.Random(str(stops))
    table: Any = Table(cleans)
    plain, met = not any("<end>" in stop for stop in stops), 0
    for _ in range(150):
        found, made = StopStrings(table, stops), list[int]()
        for _ in range(24):
            made.append(draw.randrange(len(PIECES)))
            text = table.decode(made, skip_special_tokens=plain)
            right = any(stop in text for stop in stops)
            assert found.met(made) is right, PIECES[made[-1]]
            if right:
                met += 1
                break
    assert (met > 5) is bool(stops)


def test_only_the_end_of_a_long_text_is_read() -> None:
    table: Any = Table()
    found, made = StopStrings(table, ["abc"]), [3, 2] * 500
    table.decoded.clear()
    assert not found.met([*made, 7])
    assert max(table.decoded) == 4, "as many tokens as the stop string has bytes, and the rest of one"
    assert not found.met([*made, 2]), "no stop string ends so"
    assert max(table.decoded) == 4
    assert found.met([*made, 3, 4, 0, 10, 1, 7]), "behind what has no text"
    assert max(table.decoded) == 1006, "what the end says is proved by the whole"


@pytest.mark.parametrize("stops", [["ab"], ["b<end>"], ["<s>", "c "], [" <end>"], ["<end> "], ["zz"], []])
def test_an_answer_is_the_text_before_the_first_stop_string_without_special_tokens(stops: list[str]) -> None:
    draw = random.Random(7)
    table: Any = Table()
    special = any(name in stop for name in ("<s>", "<end>") for stop in stops)
    for _ in range(300):
        tokens = [draw.choice([0, 1, 2, 3, 4, 5, 6, 7]) for _ in range(draw.randint(0, 12))]
        text, stopped = stopped_text(table, tokens, stops)
        whole = table.decode(tokens, skip_special_tokens=not special)
        if not any(stop in whole for stop in stops):  # then also where special tokens stand within one
            whole = table.decode(tokens, skip_special_tokens=True)
        places = [whole.find(stop) for stop in stops if stop in whole]
        before = whole[: min(places)] if places else whole
        assert (text, stopped) == (before.replace("<s>", "").replace("<end>", ""), bool(places))


def test_the_first_of_several_stop_strings_counts() -> None:
    assert cut_at_stop("one two three", ["three", "two"]) == ("one ", True)
    assert cut_at_stop("one", ["one"]) == ("", True)
    assert cut_at_stop("one", ["two"]) == cut_at_stop("one", []) == ("one", False)
