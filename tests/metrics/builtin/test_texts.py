"""Metrics of texts against the libraries they are of; JSON, extracting and normalising by hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcjobs.metrics import find_metric
from hpcjobs.metrics.builtin.json_valid import is_json
from hpcjobs.metrics.extract import extract
from hpcjobs.metrics.normalize import normalizer
from hpcjobs.requests import Completion, Target

# The example of sacrebleu's README, with a variable number of references, and lines that are empty or very short.
ANSWERS = [
    "The dog bit the man.", "It wasn't surprising.", "The man had just bitten him.", "", "Yes.", "the the the the",
    "Ein Haus, das 3,5 Millionen kostet – ungefähr!", "a b c d e f g h",
]  # fmt: skip
REFERENCES: list[list[str]] = [
    ["The dog bit the man.", "The dog had bit the man."], ["It was not unexpected.", "No one was surprised."],
    ["The man bit him first."], ["Something"], ["Yes.", "No."], ["the cat the mat"],
    ["Ein Haus, das 3,5 Millionen kosten soll – ungefähr."], ["a b c d x f g h"],
]  # fmt: skip
TEXTS = st.text(alphabet="abc .,é\n", max_size=30)


def answer(text: str, *more: str) -> Completion:
    return Completion(index=0, text=text, finish_reason="stop", texts=(text, *more) if more else ())


def corpus(name: str, answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
    """The run's value of a metric over answers, folded in two batches."""
    metric = find_metric(name)
    scores = [metric.judge(answer(text), list(right), {}) for text, right in zip(answers, references, strict=True)]
    fold, half = metric.fold(), len(scores) // 2
    for part in (scores[:half], scores[half:]):
        sums = pa.array([score.statistics for score in part], metric.statistics)
        fold.add(np.array([score.value for score in part], np.float64), sums)
    return dict(fold.summary())


def streams(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """References as sacrebleu takes them: one list a reference, None where a sample has fewer."""
    most = max(map(len, references))
    return [[right[number] if number < len(right) else None for right in references] for number in range(most)]


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_a_corpus_has_sacrebleus_value(name: str) -> None:
    theirs = {"bleu": sacrebleu.corpus_bleu, "chrf": sacrebleu.corpus_chrf}[name]
    for take in (slice(None), slice(0, 3), slice(3, 4), slice(4, 5), slice(5, 8)):
        found = corpus(name, ANSWERS[take], REFERENCES[take])
        assert found["value"] == theirs(ANSWERS[take], streams(REFERENCES[take])).score
    assert found["n"] == 3
    low, high = found["bootstrap_ci95"]
    assert 0 <= low <= found["value"] <= high <= 100


def test_a_corpus_is_scored_with_its_options() -> None:
    answers = [text.upper() for text in ANSWERS[:3]]
    for name, theirs in (
        ("chrf(word_order=2, beta=1)", sacrebleu.CHRF(word_order=2, beta=1)),
        ("chrf(char_order=3, whitespace=true)", sacrebleu.CHRF(char_order=3, whitespace=True)),
        ("bleu(lowercase=true, smooth_method=floor)", sacrebleu.BLEU(lowercase=True, smooth_method="floor")),
        ("bleu(tokenize=char)", sacrebleu.BLEU(tokenize="char")),
    ):
        found = corpus(name, answers, REFERENCES[:3])["value"]
        assert found == theirs.corpus_score(answers, streams(REFERENCES[:3])).score
        assert found != corpus(name.partition("(")[0], answers, REFERENCES[:3])["value"]


@pytest.mark.parametrize("name", ["bleu", "chrf"])
@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(TEXTS, st.lists(TEXTS, min_size=1, max_size=3)), min_size=1, max_size=5))
def test_any_corpus_has_sacrebleus_value(name: str, samples: list[tuple[str, list[str]]]) -> None:
    answers, references = [text for text, _ in samples], [right for _, right in samples]
    theirs = {"bleu": sacrebleu.corpus_bleu, "chrf": sacrebleu.corpus_chrf}[name]
    assert corpus(name, answers, references)["value"] == theirs(answers, streams(references)).score


def test_a_sample_has_sacrebleus_sentence_score() -> None:
    for text, right in zip(ANSWERS, REFERENCES, strict=True):
        assert find_metric("bleu").score(text, right, {}) == sacrebleu.sentence_bleu(text, right).score
        assert find_metric("chrf").score(text, right, {}) == sacrebleu.sentence_chrf(text, right).score


@pytest.mark.parametrize("name", ["bleu", "chrf"])
def test_a_corpus_is_as_lm_eval_has_it(name: str) -> None:
    from lm_eval.api import metrics as theirs

    pairs = [(right[0], text) for text, right in zip(ANSWERS, REFERENCES, strict=True)]
    first = [right[:1] for right in REFERENCES]
    assert corpus(name, ANSWERS, first)["value"] == getattr(theirs, name)(pairs)


def test_a_failed_sample_counts_as_an_empty_answer() -> None:
    metric = find_metric("bleu")
    failed, empty = metric.failed(["a b c", "d"]), metric.judge(answer(""), ["a b c", "d"], {})
    assert failed == empty
    assert (failed.value, failed.statistics) == (0.0, (0, 1, *[0] * 8)), "the closest reference is the shortest"
    assert metric.failed(None).statistics is None


def test_several_answers_stand_in_the_corpus_one_after_the_other() -> None:
    metric = find_metric("bleu")
    both = metric.judge(answer("a b c d", "a x c d"), "a b c d", {})
    one, other = (metric.judge(answer(text), "a b c d", {}) for text in ("a b c d", "a x c d"))
    assert both.value == pytest.approx((one.value + other.value) / 2)
    assert isinstance(one.statistics, tuple)
    assert isinstance(other.statistics, tuple)
    assert both.statistics == tuple(map(sum, zip(one.statistics, other.statistics, strict=True)))
    assert metric.score("x", None, {}) == 0


@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeL", "rougeLsum"])
def test_rouge_is_rouge_scores_best_over_the_targets(name: str) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    texts = [*ANSWERS, "first line here\nsecond line there", "The quick brown fox jumps over the lazy dog"]
    rights = [*REFERENCES, ["second line there\nfirst here", "none"], ["The quick brown dog jumps on the log."]]
    scorer, metric = RougeScorer([name], use_stemmer=False), find_metric(name)
    for text, right in zip(texts, rights, strict=True):
        best = max(scorer.score(one, text)[name].fmeasure for one in right)
        assert metric.score(text, right, {}) == best
    assert metric.score("x", [], {}) == 0


def test_rouge_of_the_packages_own_example() -> None:
    """rouge-score's README."""
    text, right = "The quick brown dog jumps on the log.", "The quick brown fox jumps over the lazy dog"
    assert find_metric("rouge1").score(text, right, {}) == pytest.approx(2 * 6 / 17)
    assert find_metric("rougeL").score(text, right, {}) == pytest.approx(2 * 5 / 17)


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ('{"a": [1, 2.5e3, null, true, "x\\n"]}', True), (" [1]\n", True), ("3", True), ('"text"', True),
        ("", False), ("   ", False), ("{'a': 1}", False), ('{"a": 1,}', False), ('{"a": 1} done', False),
        ("NaN", False), ("[Infinity]", False), ("// no\n1", False), ('"a\nb"', False),
        ('```json\n{"a": 1}\n```', True), ("```\n[1]\n```\n", True), ('Here:\n```json\n{"a": 1}\n```', False),
        ("```json\n```", False), ("```json\n{}", False), ("```json\n1\n```\n```\n2\n```", False),
        ("[" * 100_000, False),
    ],
)  # fmt: skip
def test_json_valid(text: str, valid: bool) -> None:
    assert is_json(text) == valid
    assert find_metric("json_valid").score(text, None, {}) == float(valid)


def test_answered() -> None:
    assert [find_metric("answered").score(text, None, {}) for text in ("x", " \n", "")] == [1, 0, 0]


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (r"#### (-?\d+)", "#### 1 and then\n#### 27", "27"), (r"\d+", "1, 2 and 3", "3"), (r"#### (\d+)", "none", ""),
        (r"answer: (.*)", "answer:  Paris \nanswer: Lyon ", "Lyon"),
        (r"(A)|(B)", "A or B", "B"), (r"x(y)?", "ab x", ""),
        (r"(?i)answer is ([A-D])", "The ANSWER IS C", "C"), (r"(?s)<a>(.*?)</a>", "<a>1\n2</a>", "1\n2"),
    ],
)  # fmt: skip
def test_extract_takes_the_last_match(pattern: str, text: str, found: str) -> None:
    assert extract(re.compile(pattern), text) == found


@pytest.mark.parametrize(
    ("names", "text", "normal"),
    [
        (["lower"], "ABC É", "abc é"), (["punctuation"], "a-b, c. 3.5!", "ab c 35"),
        (["articles"], "The cat and a dog, theatre", "  cat and   dog, theatre"),
        (["whitespace"], "  a \n\t b ", "a b"),
        (["numbers"], "1,000.50 and 007, -3.0, .5 and 0.0", "1000.5 and 7, -3, 0.5 and 0"),
        (["numbers"], "v1.2.3 on 2024.01.05, 1,2,3 and x7", "v1.2.3 on 2024.01.05, 1,2,3 and x7"),
        (["numbers"], "100 1e5 2.5e-3 −3 ４２", "100 100000 0.0025 -3 42"),
        (["numbers"], "12345678901234567890123456789012345.0", "12345678901234567890123456789012345"),
        (["numbers", "punctuation"], "3/4, 34, 3:30, 2024-05-01 (1.2.3)", "3/4 34 3:30 2024-05-01 1.2.3"),
        (["numbers", "punctuation"], "5-3 x/y -3!", "5-3 xy -3"),
        (["numbers", "punctuation"], "about $1,000.50, or 35.", "about 1000.5 or 35"),
        (["whitespace", "articles", "punctuation", "lower"], " The  Answer: is a 3.5", "answer is 35"),
        ([], " As it is ", " As it is "),
    ],
)  # fmt: skip
def test_normalising(names: list[str], text: str, normal: str) -> None:
    assert normalizer(names)(text) == normal


def test_all_but_numbers_is_squads_normalize_answer() -> None:
    """evaluate-v1.1.py's function on its own terms: lower, punctuation, articles, white space."""
    import string

    def normalize_answer(text: str) -> str:
        text = "".join(letter for letter in text.lower() if letter not in set(string.punctuation))
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())

    ours = normalizer(["lower", "punctuation", "articles", "whitespace"])
    for text in ("The  Denver Broncos!", "Levi's Stadium, a", "an-other", "", "  ", *ANSWERS):
        assert ours(text) == normalize_answer(text)


def test_a_text_metric_has_several_answers_in_the_mean() -> None:
    target: Target = ["Paris"]
    assert find_metric("exact_match").judge(answer("Paris", "Lyon", "Paris", "x"), target, {}).value == 0.5
