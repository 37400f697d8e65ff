"""The numbers in a text, by value: which one is the answer, and whether a target is one number."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

from hpcjobs.metrics.number_notation import CASED, OTHER, one_notation

# Above this many digits it is no answer, but a model that repeats itself.
MOST_DIGITS = 400
_MARK = "####"
_BRACE = re.compile(r"\\f?boxed\s*\{|[{}]")
_CODES = "USD|EUR|GBP|JPY|CNY|RMB|INR|CHF|CAD|AUD|NZD|HKD|SGD|KRW|BRL|MXN|RUB|SEK|NOK|DKK|PLN|CZK|TRY|ZAR|THB"
_CURRENCY = rf"(?:(?:(?:US|CA|AU|HK|NZ|R|S)?\$|[€£¥₹₽₩₺₫₪฿]|Rs\.?|(?:{_CODES}))\s?)?"
# Possessive (`++`), so that no part of a longer number is one. Thousands by comma (also 12,34,567), blank, ' or _.
_WHOLE = (
    r"(?:\d{1,3}(?:,\d{3})++(?!,?\d)|\d{1,2}(?:,\d{2}(?!\d))*+,\d{3}(?!,?\d)"
    r"|\d{1,3}(?:[ '_]\d{3})++(?![ ,'_]?\d)|\d++(?!,\d))"
)
_PLAIN = rf"(?:{_WHOLE}(?:\.\d++)?|\.\d++)(?![.:]\d)"
_SCALE = (
    r"[eE](?P<e>[-+]?\d{1,4})(?!\w)|\s?[×xX*]\s?10\s?\^\s?\(?(?P<ten>[-+]?\d{1,4})"
    r"|\s?\^\s?\(?(?P<power>[-+]?\d{1,4})"
)
_DATE = r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}(?!\d)|\d{1,2}(?P<of>[-/.])\d{1,2}(?P=of)\d{2,4}(?!\d)"
_MIXED = r"(?P<units>\d{1,9})[ ]+(?P<part>\d{1,9}[ ]?/[ ]?\d{1,9})(?![/\d])"
_NUMBER = re.compile(
    rf"(?<![{CASED}\d_.])(?:{OTHER}|{_DATE}"
    rf"|(?P<signed>(?:(?<![{CASED}\d)])(?P<sign>[-+]))?{_CURRENCY}(?P<inner>[-+])?"
    rf"(?:{_MIXED}|(?P<number>{_PLAIN})(?:{_SCALE}|\s?/\s?(?P<below>{_PLAIN})(?!/))?))"
    r"|\d+(?:[.,:]\d+)+)"
)
_HEADING = re.compile(r"[.):]\s+\S")


class NumberReader:
    """Reads numbers in texts. `decimal_comma`: 1.234,5 is what 1,234.5 is otherwise."""

    def __init__(self, decimal_comma: bool = False) -> None:
        self._swapped = str.maketrans(".,", ",.") if decimal_comma else {}

    def answer(self, text: str) -> Fraction | None:
        """The number that a text answers with; None if it is none.

        It is the one after the first '####', as in GSM8K; else the one in the last `\\boxed{}`; else the last in the
        text.
        """
        marked, boxed = self._marked(text), _last_boxed(text)
        if marked is not None:
            return marked
        if boxed is not None:
            return self.only(re.split("[=≈]", boxed)[-1])
        return next(reversed([*self._values(text)]), None)

    def target(self, text: str) -> Fraction | None:
        """The number that a target is; None if it is not one, but several, parts of a date, or none."""
        boxed = _last_boxed(text)
        value = self._marked(text) if _MARK in text else self.only(text if boxed is None else boxed)
        # A number of a JSON file has a point: where 3.5 is no number with a comma, it is one with a point.
        return NumberReader().target(text) if value is None and self._swapped else value

    def only(self, text: str) -> Fraction | None:
        """The only number in a text; None if there are several or none."""
        values = [*self._values(text)]
        return values[0] if len(values) == 1 else None

    def _marked(self, text: str) -> Fraction | None:
        """The number directly after the first '####' that has one; the number of a heading (#### 1. Cost) is none."""
        for rest in text.split(_MARK)[1:]:
            line = one_notation(rest.lstrip(" \t\r\n*_`$(").split("\n")[0]).translate(self._swapped).lstrip()
            found = _NUMBER.match(line)
            if found and not _HEADING.match(line, found.end()):
                return _value(found)
        return None

    def _values(self, text: str) -> Iterator[Fraction | None]:
        """Each number of a text; None for what is none, such as a date."""
        for found in _NUMBER.finditer(one_notation(text).translate(self._swapped)):
            yield _value(found)


def _value(found: re.Match[str]) -> Fraction | None:
    """The value of a match; None if it is no number, or has too many digits."""
    if found["signed"] is None or len(found[0]) > MOST_DIGITS:
        return None
    sign = -1 if "-" in (found["sign"], found["inner"]) else 1
    if found["units"] is not None:
        above, below = map(int, found["part"].split("/"))
        return sign * (int(found["units"]) + Fraction(above, below)) if below else None
    value = _fraction(found["number"])
    if found["below"] is not None:
        below_ = _fraction(found["below"])
        return sign * value / below_ if below_ else None
    exponent = found["e"] or found["ten"]
    if exponent is not None:
        return _scaled(sign * value, 10, int(exponent))
    if found["power"] is not None:
        return _scaled(Fraction(sign), value, int(found["power"]))
    return sign * value


def _fraction(number: str) -> Fraction:
    return Fraction(re.sub("[ ,'_]", "", number))


def _scaled(value: Fraction, base: Fraction | int, exponent: int) -> Fraction | None:
    """value * base ** exponent; None beyond so many digits."""
    if abs(exponent) * len(str(base)) > 2 * MOST_DIGITS or (not base and exponent < 0):
        return None
    return value * Fraction(base) ** exponent


def _last_boxed(text: str) -> str | None:
    """What stands in the `\\boxed{}` that is closed last; None if there is none, or nothing in it."""
    opened, content = list[int | None](), ""
    for found in _BRACE.finditer(text):
        if found[0] != "}":
            opened.append(found.end() if len(found[0]) > 1 else None)
        elif opened and (start := opened.pop()) is not None:
            content = text[start : found.start()]
    return content.strip() or None
