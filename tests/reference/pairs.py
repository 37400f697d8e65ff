"""Answers and targets as tasks in many languages have them: seeded, some empty, with several targets."""

from __future__ import annotations

import random
from dataclasses import dataclass

# Words of scripts that split, join, fold or mirror in their own ways.
_WORDS = {
    "english": "the a an cat dog answer is not yes no Paris don't re-use U.S. e.g. theatre three",
    "numbers": "7 -7 +3.5 1,234 1,234.50 $5 €3,20 50% 3/4 007 1e5 −3 ½ ١٢٣ ４２ #### \\boxed{4}",
    "german": "Straße STRASSE groß Äpfel über das Haus 3,5 Millionen – ungefähr",
    "turkish": "İstanbul ISPARTA ılık İĞNE iğne",
    "greek": "Ὀδυσσεύς ΣΊΣΥΦΟΣ σίσυφος ἄειδε",
    "russian": "Москва — столица России 1 000 рублей",
    "chinese": "北京 是 中国的首都 。 你好，世界！ 三 ３．５ 「引号」",
    "japanese": "東京は日本の首都です カタカナ ひらがな ﾊﾝｶｸ １２３円",
    "korean": "서울은 대한민국의 수도이다 한국어",
    "arabic": "القاهرة عاصمة مصر كِتَاب ٣٫٥ ؟ نعم",
    "hebrew": "ירושלים שָׁלוֹם עולם צה״ל",
    "hindi": "दिल्ली भारत की राजधानी है १२३",
    "thai": "กรุงเทพมหานคร เป็น เมืองหลวง",
    "code": "null 1 [1] 3.5 true {} x=1; {'a':[1,2]} <b>&amp;&quot; a_b *bold* \\frac{1}{2} C++ http://x.org/?q=1",
    "odd": "👩‍👩‍👧 e\u0301 \u00e9 ﬁne ǅ \u200b \u202eabc \u00ad \ufeff <skipped> ſ",
}
_SPACES = (" ", " ", " ", "  ", "\n", "\u00a0", "\u3000", "-\n", ", ", ". ")


@dataclass(frozen=True)
class Pair:
    """An answer of a model and its targets, one or several."""

    answer: str
    targets: list[str]


def generated(count: int, seed: int = 14) -> list[Pair]:
    """`count` pairs; the same ones for the same seed."""
    draw = random.Random(seed)
    return [_pair(draw) for _ in range(count)]


def _pair(draw: random.Random) -> Pair:
    language = draw.choice(list(_WORDS))
    answer = _text(draw, language)
    targets = [_text(draw, language) if draw.random() < 0.3 else _changed(draw, answer) for _ in range(_few(draw))]
    return Pair(answer, targets)


def _few(draw: random.Random) -> int:
    return draw.choice((1, 1, 1, 2, 3, 4))


def _text(draw: random.Random, language: str) -> str:
    if draw.random() < 0.06:
        return draw.choice(("", " ", "\n", ".", "the", "\u3000"))
    pools = [_WORDS[language], _WORDS[language], _WORDS["english"], _WORDS["numbers"]]
    words = [draw.choice(draw.choice(pools).split(" ")) for _ in range(draw.randint(1, 14))]
    return "".join(word + draw.choice(_SPACES) for word in words)


def _changed(draw: random.Random, text: str) -> str:
    """The text, or one that a scorer must tell from it or must not: a case, a blank, a word less or more."""
    words = text.split()
    changes = (
        text, text.strip(), f" {text}\n", text.upper(), text.lower(), text.title(), " ".join(words),
        " ".join(words[1:]), " ".join(words[: len(words) // 2]), " ".join([*words, "the", "end"]),
        " ".join(reversed(words)), "\n".join(words), text.replace(",", "").replace(".", ""),
    )  # fmt: skip
    return draw.choice(changes)
