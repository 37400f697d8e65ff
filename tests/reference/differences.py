"""Each metric against a program that we did not write, on the same generated pairs: the largest differences.

`python -m tests.reference.differences` prints the table of 2,000 pairs, and `--write` puts it into docs/metrics.md.
"""

from __future__ import annotations

import importlib
import json
import math
import random
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa

from hpcjobs.metrics import Metric, find_metric
from hpcjobs.metrics.normalize import normalizer
from hpcjobs.requests import Completion, Likelihood, Target
from tests.reference.pairs import Pair, generated

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
SQUAD = ("lower", "punctuation", "articles", "whitespace")


@dataclass(frozen=True)
class Row:
    """A metric, what it is compared with, how many values there are, how many not 0, and the greatest difference."""

    metric: str
    reference: str
    values: int
    nonzero: int
    largest: float

    @property
    def cells(self) -> str:
        """The row in Markdown."""
        return f"| {self.metric} | {self.reference} | {self.values:,} | {self.nonzero:,} | {self.largest:.1g} |"


def table(count: int = 2000) -> Iterator[Row]:
    """A row for each metric, of `count` pairs."""
    pairs = generated(count)
    yield from _samples(pairs)
    yield from _corpora(pairs)
    yield from _repeats(pairs)
    yield from _options(pairs)
    yield from _likelihoods(pairs)


def compared(metric: str, reference: str, ours: Sequence[float], theirs: Sequence[float]) -> Row:
    """The row of two lists of values."""
    each = [0.0 if a == b else abs(a - b) for a, b in zip(ours, theirs, strict=True)]
    return Row(metric, reference, len(each), sum(value != 0 for value in theirs), max(each, default=0.0))


def _samples(pairs: Sequence[Pair]) -> Iterator[Row]:
    """Scores of one sample each."""
    for name, reference, theirs in _scorers():
        metric = find_metric(name)
        asked = [_ASKED.get(name, _as_it_is)(number, pair) for number, pair in enumerate(pairs)]
        ours = [metric.judge(answer(pair.answer), pair.targets, {}).value for pair in asked]
        yield compared(f"`{name}`", reference, ours, [float(theirs(pair)) for pair in asked])
    normal, squad = normalizer(SQUAD), _longbench().normalize_answer
    ours = [find_metric("exact_match").score(normal(pair.answer), normal(pair.targets[0]), {}) for pair in pairs]
    right = [float(squad(pair.answer) == squad(pair.targets[0])) for pair in pairs]
    yield compared("`exact_match`, `normalize` as SQuAD", "lm_eval's copy of SQuAD's script", ours, right)


def _as_it_is(_: int, pair: Pair) -> Pair:
    return pair


def _without_turkish_i(_: int, pair: Pair) -> Pair:
    """With i for the dotted and the dotless one: regex takes all as equal, Unicode's default folding does not."""
    plain = str.maketrans("İı", "Ii")
    return Pair(pair.answer.translate(plain), [one.translate(plain) for one in pair.targets])


def _json(number: int, pair: Pair) -> Pair:
    """Two of three with an answer that is JSON, or was before a letter of it went or came twice."""
    draw = random.Random(number)
    values: list[Any] = [pair.answer, pair.targets, -number, number / 7, {pair.targets[0]: None, "": [True]}, math.inf]
    # Without escapes: half a surrogate is JSON by RFC 8259's grammar, and refused by pydantic.
    text = json.dumps(draw.choice(values), ensure_ascii=False, indent=draw.choice([None, 2]))
    place = draw.randrange(len(text))
    before, letter, after = text[:place], text[place], text[place + 1 :]
    changed = draw.choice([text, before + after, before + 2 * letter + after])
    return pair if number % 3 == 0 else Pair(changed, pair.targets)


_ASKED = {"contains": _without_turkish_i, "json_valid": _json}


def _scorers() -> Iterator[tuple[str, str, Callable[[Pair], float]]]:
    import regex
    import sacrebleu
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from pydantic_core import from_json
    from rouge_score.rouge_scorer import RougeScorer

    def exact(pair: Pair) -> float:
        texts = [pair.answer.strip()], [[one.strip()] for one in pair.targets]
        return max(float(exact_match_hf_evaluate(texts[0], one)["exact_match"]) for one in texts[1])

    def contains(pair: Pair) -> float:
        flags = regex.IGNORECASE | regex.FULLCASE | regex.VERSION1
        wanted = [regex.escape(one.strip(), special_only=False) for one in pair.targets if one.strip()]
        return float(any(regex.search(one, pair.answer, flags) for one in wanted))

    def json_value(pair: Pair) -> float:
        try:
            from_json(pair.answer, allow_inf_nan=False)
        except ValueError:
            return 0.0
        return 1.0

    yield "exact_match", "lm_eval `exact_match_hf_evaluate`", exact
    yield "contains", "regex, full case folding (Turkish i aside)", contains
    yield "f1", "lm_eval's copy of SQuAD's script", _squad_f1
    yield "bleu", "sacrebleu `sentence_bleu`", lambda pair: sacrebleu.sentence_bleu(pair.answer, pair.targets).score
    yield "chrf", "sacrebleu `sentence_chrf`", lambda pair: sacrebleu.sentence_chrf(pair.answer, pair.targets).score
    for name in ("rouge1", "rouge2", "rougeL", "rougeLsum"):
        scorer = RougeScorer([name])
        yield name, "rouge_score, the best target", _best_rouge(name, scorer)
    yield (
        "rougeL(use_stemmer=true)",
        "rouge_score, the best target",
        _best_rouge("rougeL", RougeScorer(["rougeL"], True)),
    )
    for name in ("rouge2", "rougeLsum"):
        scorer = RougeScorer([name])
        yield f"{name}(tokenizer=char)", "rouge_score, a word for each character", _best_rouge(name, scorer, _spelt)
    for name, options in _BLEU.items():
        yield name, "sacrebleu `BLEU(...)`", _sentence(sacrebleu.BLEU(effective_order=True, **options))
    for name, options in _CHRF.items():
        yield name, "sacrebleu `CHRF(...)`", _sentence(sacrebleu.CHRF(**options))
    yield "json_valid", "pydantic's parser", json_value
    yield "answered", "regex `\\S`", lambda pair: float(bool(re.search(r"\S", pair.answer)))


_BLEU: dict[str, dict[str, Any]] = {
    "bleu(tokenize=zh)": {"tokenize": "zh"},
    "bleu(tokenize=intl, lowercase=true)": {"tokenize": "intl", "lowercase": True},
    "bleu(tokenize=char, smooth_method=add-k, smooth_value=2)": {
        "tokenize": "char", "smooth_method": "add-k", "smooth_value": 2.0,
    },
}  # fmt: skip
_CHRF: dict[str, dict[str, Any]] = {
    "chrf(word_order=2)": {"word_order": 2},
    "chrf(char_order=4, beta=1, lowercase=true, whitespace=true)": {
        "char_order": 4, "beta": 1, "lowercase": True, "whitespace": True,
    },
    "chrf(eps_smoothing=true)": {"eps_smoothing": True},
}  # fmt: skip


def _best_rouge(name: str, scorer: Any, spelt: Callable[[str], str] = str) -> Callable[[Pair], float]:
    return lambda pair: max(float(scorer.score(spelt(one), spelt(pair.answer))[name].fmeasure) for one in pair.targets)


def _spelt(text: str) -> str:
    """A word of ASCII for each character, which rouge-score's own tokenizer keeps."""
    return "\n".join(" ".join(f"x{ord(letter)}" for letter in line if not letter.isspace()) for line in _lines(text))


def _lines(text: str) -> list[str]:
    return text.lower().split("\n")


def _sentence(scorer: Any) -> Callable[[Pair], float]:
    return lambda pair: float(scorer.sentence_score(pair.answer, pair.targets).score)


@cache
def _longbench() -> ModuleType:
    """lm_eval's metrics of LongBench, which have SQuAD's script. Libraries that the functions used here do not need are
    stood in for, as they are not among the tests' own.
    """
    stand_ins = {name: ModuleType(name) for name in ("jieba", "fuzzywuzzy", "rouge") if name not in sys.modules}
    for name, attribute in (("fuzzywuzzy", "fuzz"), ("rouge", "Rouge")):
        vars(stand_ins.get(name, ModuleType(name)))[attribute] = None
    sys.modules.update(stand_ins)
    try:
        module = importlib.import_module("lm_eval.tasks.longbench.metrics")
    finally:
        for name in stand_ins:  # others ask whether there is such a library
            del sys.modules[name]
    return module


def _squad_f1(pair: Pair) -> float:
    """The best of the targets, with SQuAD v2's rule for texts without words: 1 if both have none, else 0."""

    def one(right: str) -> float:
        empty = [not _longbench().normalize_answer(text) for text in (pair.answer, right)]
        return float(all(empty)) if any(empty) else float(_longbench().qa_f1_score(pair.answer, right))

    return max(map(one, pair.targets))


def _corpora(pairs: Sequence[Pair]) -> Iterator[Row]:
    """Values of a whole corpus, of some sizes."""
    import sacrebleu

    scorers: dict[str, Any] = {"bleu": sacrebleu.BLEU(), "chrf": sacrebleu.CHRF()}
    scorers |= {name: sacrebleu.BLEU(**options) for name, options in _BLEU.items()}
    scorers |= {name: sacrebleu.CHRF(**options) for name, options in _CHRF.items()}
    for name, scorer in scorers.items():
        ours, right = [], []
        for part in parts(pairs):
            most = max(len(pair.targets) for pair in part)
            streams = [[dict(enumerate(pair.targets)).get(number) for pair in part] for number in range(most)]
            ours.append(corpus_value(find_metric(name), part))
            right.append(scorer.corpus_score([pair.answer for pair in part], streams).score)
        yield compared(f"`{name}` of a run", "sacrebleu `corpus_score`", ours, right)


def parts(pairs: Sequence[Pair]) -> list[Sequence[Pair]]:
    """The whole and some parts of it, down to one pair."""
    return [pairs, pairs[: len(pairs) // 2], pairs[:100], pairs[100:120], *(pairs[n : n + 1] for n in range(20))]


def corpus_value(metric: Metric, pairs: Sequence[Pair]) -> float:
    """The run's value of a metric of sums."""
    return _folded(metric, [(answer(pair.answer), pair.targets) for pair in pairs])


def _folded(metric: Metric, samples: Sequence[tuple[Completion, Target]]) -> float:
    scores = [metric.judge(one, target, {}) for one, target in samples]
    fold = metric.fold()
    sums = pa.array([score.statistics for score in scores], metric.statistics)
    fold.add(np.array([score.value for score in scores]), sums)
    value = fold.summary()["value"]
    return math.nan if value is None else value


def _repeats(pairs: Sequence[Pair]) -> Iterator[Row]:
    """Metrics over several answers to a prompt: some of them right, in any order."""
    from lm_eval.filters.selection import MajorityVoteFilter
    from scipy.stats import hypergeom

    draw, passes, chances, votes, majority = random.Random(1), [], [], [], []
    for pair in pairs:
        texts = [draw.choice(["a", "b", pair.targets[0].strip() or "c"]) for _ in range(draw.randint(1, 12))]
        right, k = sum(text == pair.targets[0].strip() for text in texts), draw.randint(1, len(texts))
        passes.append(find_metric(f"pass@{k}").judge(answer(*texts), pair.targets[:1], {}).value)
        chances.append(float(hypergeom(len(texts), right, k).sf(0)))
        votes.append(find_metric("majority").judge(answer(*texts), pair.targets[:1], {}).value)
        elected = next(iter(MajorityVoteFilter().apply([texts], [{}])))[0]
        majority.append(float(elected == pair.targets[0].strip()))
    yield compared("`pass@k`", "scipy `hypergeom.sf`", passes, chances)
    yield compared("`majority`", "lm_eval `majority_vote`", votes, majority)


class Doc:
    """What lm_eval's `process_results` asks of a multiple-choice task."""

    OUTPUT_TYPE, multiple_input = "multiple_choice", False

    def __init__(self, options: Sequence[str], right: int | list[int]) -> None:
        self._options, self._right = list(options), right
        self.multiple_target = isinstance(right, list)
        self._metric_fn_list = dict.fromkeys(("acc", "acc_norm", "acc_bytes"))
        self.config = type("Config", (), {"process_results": None})()

    def doc_to_choice(self, doc: Any) -> list[str]:
        """The options."""
        return self._options

    def doc_to_target(self, doc: Any) -> int | list[int]:
        """The right ones."""
        return self._right


def _options(pairs: Sequence[Pair]) -> Iterator[Row]:
    from lm_eval.api.task import ConfigurableTask

    draw, names = random.Random(2), ("acc", "acc_norm", "acc_bytes")
    ours: dict[str, list[float]] = {name: [] for name in names}
    theirs: dict[str, list[float]] = {name: [] for name in names}
    for pair in pairs:
        options = [text or "-" for text in (pair.answer, *pair.targets, "B")]
        logprobs = [float(-draw.randint(1, 40)) for _ in options]
        right: Any = draw.choice([draw.randrange(len(options)), [0, len(options) - 1]])
        found = ConfigurableTask.process_results(Doc(options, right), {}, [(one, False) for one in logprobs])
        for name in names:
            ours[name].append(find_metric(name).judge(scored(logprobs, options), right, {}).value)
            theirs[name].append(float(found[name]))
    for name in names:
        yield compared(f"`{name}`", "lm_eval `process_results`", ours[name], theirs[name])


def _likelihoods(pairs: Sequence[Pair]) -> Iterator[Row]:
    from lm_eval.api.metrics import bits_per_byte, weighted_perplexity
    from lm_eval.api.task import PerplexityTask

    draw = random.Random(3)
    texts = [pair.answer for pair in pairs]
    sums = [(-draw.random() * (len(text) + 1), draw.randint(1, 30)) for text in texts]
    weights: dict[str, tuple[Callable[..., float], list[int]]] = {
        "perplexity": (weighted_perplexity, [tokens for _, tokens in sums]),
        "word_perplexity": (weighted_perplexity, [PerplexityTask.count_words(text) for text in texts]),
        "byte_perplexity": (weighted_perplexity, [PerplexityTask.count_bytes(text) for text in texts]),
        "bits_per_byte": (bits_per_byte, [PerplexityTask.count_bytes(text) for text in texts]),
    }
    for name, (theirs, units) in weights.items():
        ours, right = [], []
        for start, stop in ((0, len(texts)), (0, 100), *((n, n + 1) for n in range(20))):
            samples = [(scored([ll], (), n), text) for (ll, n), text in zip(sums, texts, strict=True)][start:stop]
            pairs_ = [(ll, unit) for (ll, _), unit in zip(sums, units, strict=True)][start:stop]
            if sum(unit for _, unit in pairs_):  # neither has a value for a text of no bytes
                ours.append(_folded(find_metric(name), samples))
                right.append(theirs(pairs_))
        yield compared(f"`{name}` of a run", f"lm_eval `{theirs.__name__}`", ours, right)


def answer(*texts: str) -> Completion:
    """A completion of one text, or of several answers to one prompt."""
    return Completion(index=0, text=texts[0], finish_reason="stop", texts=texts if len(texts) > 1 else ())


def scored(logprobs: Sequence[float], options: Sequence[str] = (), tokens: int = 1) -> Completion:
    """A completion with log-likelihoods of options, or of a text of so many tokens."""
    count = len(logprobs)
    found = Likelihood(tuple(logprobs), (False,) * count, (tokens,) * count, tuple(options))
    return Completion(index=0, text="", finish_reason="stop", likelihood=found)


def markdown(rows: Sequence[str]) -> str:
    """The lines of a table with its head."""
    head = "| metric | compared with | values | not 0 | largest difference |\n|---|---|---|---|---|"
    return "\n".join([head, *rows]) + "\n"


def written(page: str, table: str) -> str:
    """The page with the table that has the same head replaced."""
    head = re.escape(table.partition("\n")[0])
    return re.sub(rf"^{head}\n(?:\|.*\n)*", lambda _: table, page, flags=re.MULTILINE)


def main(arguments: Sequence[str]) -> None:
    """Print the table, or write it into the page."""
    made = markdown([row.cells for row in table()])
    print(made)
    if "--write" in arguments:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), made), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
