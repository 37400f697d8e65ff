"""Answers with numbers as models write them, each with the right verdict: hpcjobs beside lm_eval and math-verify.

`python -m tests.reference.number_answers` prints who is right and each answer on which one is not; `--write` puts the
table into docs/metrics.md.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hpcjobs.metrics import find_metric
from tests.reference.differences import PAGE, written


@dataclass(frozen=True)
class Case:
    """An answer, a target, and whether the answer is right. `metric` has the options of the kind."""

    kind: str
    answer: str
    target: str
    right: bool
    metric: str = "number_match"


def cases() -> list[Case]:
    """Each notation and frame with a right and a wrong target, and answers by hand."""
    return [*_framed(), *_by_hand()]


# Of each kind: the number as it is written, its value, and a value that it is easily mistaken for.
_NOTATIONS: dict[str, list[tuple[str, str, str]]] = {
    "plain": [("42", "42", "4"), ("-7", "-7", "7"), ("0.25", "0.25", "25"), ("7.0", "7", "0"), ("007", "7", "0")],
    "thousands": [
        ("1,234", "1234", "234"), ("12,345,678", "12345678", "678"), ("1{,}234", "1234", "234"),
        ("1\\,234", "1234", "234"),
        ("1 234 567", "1234567", "567"), ("1\u202f234", "1234", "234"), ("1'234'567", "1234567", "567"),
        ("12,34,567", "1234567", "567"), ("1_000", "1000", "0"),
    ],
    "currency": [
        ("$18", "18", "8"), ("$1,234.50", "1234.5", "50"), ("-$5", "-5", "5"), ("$-5", "-5", "5"), ("USD5", "5", "0"),
        ("€3.20", "3.2", "20"), ("18 dollars", "18", "8"), ("\\$18", "18", "8"), ("£1,000", "1000", "0"),
        ("18元", "18", "8"),
    ],
    "bold and italics": [
        ("**42**", "42", "2"), ("_42_", "42", "2"), ("*42*", "42", "2"), ("`42`", "42", "2"), ("__-3__", "-3", "3"),
        ("**$1,200**", "1200", "200"),
    ],
    "LaTeX": [
        ("$42$", "42", "2"), ("\\(42\\)", "42", "2"), ("\\boxed{42}", "42", "2"), ("$\\boxed{-3}$", "-3", "3"),
        ("\\boxed{1{,}234}", "1234", "234"), ("\\boxed{18\\text{ dollars}}", "18", "8"), ("\\textbf{42}", "42", "2"),
        ("\\[ x = 42 \\]", "42", "2"), ("\\boxed{x = 5}", "5", "0"), ("\\boxed{\\$18}", "18", "8"),
    ],
    "fractions": [
        ("3/4", "0.75", "4"), ("\\frac{3}{4}", "0.75", "4"), ("\\dfrac{1}{2}", "1/2", "2"),
        ("-\\frac{1}{2}", "-0.5", "2"),
        ("\\boxed{\\frac{3}{8}}", "3/8", "8"), ("½", "0.5", "2"), ("1½", "1.5", "2"), ("1 1/2", "3/2", "2"),
        ("2\\frac{3}{4}", "2.75", "4"), ("\\frac12", "1/2", "2"),
    ],
    "exponents": [
        ("1e5", "100000", "5"), ("1.5e3", "1500", "3"), ("2.5E-3", "0.0025", "3"), ("3 × 10^8", "300000000", "8"),
        ("3 \\times 10^{8}", "300000000", "8"), ("3 x 10^8", "3e8", "8"), ("10^6", "1000000", "6"),
        ("10⁶", "1000000", "6"),
        ("2^{10}", "1024", "10"), ("1e-05", "0.00001", "5"), ("0.00001", "1e-05", "5"),
        ("10000000000000000", "1e+16", "16"),
    ],
    "units": [
        ("18 km", "18", "8"), ("18km", "18", "8"), ("42°C", "42", "2"), ("5 m²", "5", "2"), ("5 cm^2", "5", "2"),
        ("60 km/h", "60", "0"), ("50%", "50", "0"), ("50\\%", "50", "0"), ("7 H₂O molecules", "7", "2"),
        ("90^\\circ", "90", "0"),
    ],
    "other scripts": [
        ("４２", "42", "2"), ("١٢٣", "123", "3"), ("٣٫٥", "3.5", "5"), ("−3", "-3", "3"), ("－３", "-3", "3"),
        ("१२३", "123", "3"),
        ("۱۲۳", "123", "3"), ("１，２３４", "1234", "234"), ("–3", "-3", "3"),
    ],
}  # fmt: skip
_FRAMES = ("{}", "The answer is {}.", "She had 3 of 10 apples, so the answer is {}")
_COMMA = "number_match(decimal=comma)"


def _framed() -> Iterator[Case]:
    for kind, notations in _NOTATIONS.items():
        for text, value, other in notations:
            for frame in _FRAMES:
                yield Case(kind, frame.format(text), value, True)
            yield Case(kind, _FRAMES[1].format(text), other, False)


def _by_hand() -> Iterator[Case]:
    said = "She has 18 left.\n#### 18\n\nQuestion: Tom has 3 bags of 4.\nAnswer: 3*4 = 12\n#### 12"
    yield from (Case("one more example", said, value, value == "18") for value in ("18", "12"))
    for text, value, right in (
        ("#### 1\n#### 2", "1", True), ("9 * 2 = $<<9*2=18>>18 a day.\n#### 18", "18", True),
        ("#### -$5", "-5", True),
        ("#### 2,125.", "2125", True), ("#### **18**", "18", True), ("#### 18 dollars (3 x 6)", "18", True),
        ("#### 1. Cost\nIt is 4 x 5.\n#### 2. Sum\nThe answer is 20.", "20", True),
    ):  # fmt: skip
        yield Case("after ####", text, value, right)
    for text, target in (
        ("2", "1/2"), ("3/2", "1/2"), ("4:30", "3:30"), ("2023-05-01", "2024-05-01"), ("123", "1,2,3"), ("12", "1,2"),
        ("4", "\\frac{3}{4}"), ("4", "3/4"), ("5", "2√5"), ("3", "2\\sqrt{3}"), ("4", "\\frac{\\pi}{4}"),
        ("2", "(1, 2)"),
    ):  # fmt: skip
        yield Case("targets of parts", text, target, False)
    for text, value, right in (
        ("The answer is 3,5.", "3.5", True), ("1.234,56 €", "1234.56", True), ("1.000.000", "1000000", True),
        ("-0,5", "-1/2", True), ("Es sind 12,5 kg.", "12.5", True), ("3,5", "5", False), ("1.234", "1.234", True),
    ):  # fmt: skip
        yield Case("decimal comma, by option", text, value, right, _COMMA)
    for text, value in (
        ("2\\sqrt{3}", "3"), ("5π", "5"), ("The date is 2024-05-01.", "1"), ("It is 4:30.", "30"),
        ("\\boxed{A}, 18", "18"),
        ("v1.2.3", "3"), ("x7", "7"), ("1/0", "0"), ("", "0"), ("I do not know.", "0"),
        ("\\boxed{5, 7}", "7"), ("3,5", "5"),
    ):  # fmt: skip
        yield Case("no number", text, value, False)
    yield Case("box before words", "So \\boxed{18}. I took 3 steps.", "18", True)
    yield Case("box before words", "So \\boxed{18}. I took 3 steps.", "3", False)


Judge = Callable[[Case], bool]


def ours(case: Case) -> bool:
    """What number_match says."""
    return find_metric(case.metric).score(case.answer, case.target, {}) == 1


def flexible(case: Case) -> bool:
    """What lm_eval's gsm8k says: its `flexible-extract` filter, then exact_match with what it ignores."""
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.filters.extraction import RegexFilter

    pattern = RegexFilter(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", group_select=-1)
    [[found]] = pattern.apply([[case.answer]], [{}])
    ignored = [",", "\\$", "(?s).*#### ", "\\.$"]
    same = exact_match_hf_evaluate([found], [case.target], regexes_to_ignore=ignored, ignore_case=True)
    return bool(same["exact_match"])


def verified(case: Case) -> bool:
    """What math-verify says."""
    from math_verify import parse, verify

    target = case.target if re.search(r"\\boxed|\$", case.target) else f"${case.target}$"
    return bool(
        verify(parse(target, parsing_timeout=None), parse(case.answer, parsing_timeout=None), timeout_seconds=None)
    )


JUDGES: dict[str, Judge] = {"number_match": ours, "flexible-extract": flexible, "math-verify": verified}


def verdicts(judges: Sequence[str]) -> dict[Case, dict[str, bool]]:
    """For each case, which of the judges are right."""
    return {case: {name: JUDGES[name](case) == case.right for name in judges} for case in cases()}


def table(found: dict[Case, dict[str, bool]]) -> str:
    """How many verdicts of each judge are right, by kind, in Markdown."""
    names = list(next(iter(found.values())))
    lines = [f"| answers | n | {' | '.join(f'{name} right' for name in names)} |", "|---|" + "---|" * (len(names) + 1)]
    kinds = list(dict.fromkeys(case.kind for case in found))
    for kind in (*kinds, "all"):
        part = [right for case, right in found.items() if kind in (case.kind, "all")]
        counts = " | ".join(str(sum(right[name] for right in part)) for name in names)
        lines.append(f"| {kind} | {len(part)} | {counts} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Print the table and who errs where, or write the table into the page."""
    found = verdicts(list(JUDGES))
    print(table(found))
    for case, right in found.items():
        wrong = [name for name, is_right in right.items() if not is_right]
        if wrong:
            verdict = "right" if case.right else "wrong"
            print(f"{case.answer!r} for {case.target!r} is {verdict}; not to {', '.join(wrong)}")
    if "--write" in arguments:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), table(found)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
