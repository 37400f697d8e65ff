from __future__ import annotations

import pytest

from hpcjobs.compare.excerpt import excerpt, first_difference


@pytest.mark.parametrize(
    ("texts", "place"),
    [
        (["same", "same"], 4), (["left", "right"], 0), (["abc", "abd", "abc"], 2), (["ab", "abc"], 2), (["", "x"], 0),
        (["alone"], 5),
    ],
)  # fmt: skip
def test_the_first_place_at_which_texts_differ(texts: list[str], place: int) -> None:
    assert first_difference(texts) == place


def test_a_short_text_is_whole_and_a_long_one_is_cut_around_its_place() -> None:
    assert excerpt("a\nb\x9b", 3) == "'a\\nb\\x9b'"
    assert excerpt("x" * 200, 150) == repr("x" * 200)
    text = "".join(chr(ord("a") + place % 26) for place in range(900))
    assert excerpt(text, 10) == f"{text[:200]!r} ..."
    assert excerpt(text, 500) == f"... {text[460:660]!r} ..."
    assert excerpt(text, 900) == excerpt(text, 2000) == f"... {text[860:]!r}"
