"""pass@k and majority: metrics over several answers to one prompt."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence

from hpcjobs.errors import ConfigError
from hpcjobs.metrics.base import Metric, Score, bounds_of, failed_score, texts_of
from hpcjobs.metrics.fold import Fold, MeanFold
from hpcjobs.requests import Completion, Row, Target


class _OverRepeats(Metric):
    """Computed from another metric's scores of each answer to one prompt."""

    def __init__(self, name: str, base: Metric) -> None:
        self.name, self._base = name, base
        self.normalized = getattr(base, "normalized", True)
        self.needs_target = getattr(base, "needs_target", True)
        self.revision = getattr(base, "revision", 1)

    def refuse(self, target: Target) -> str:
        """What the base metric says of the target."""
        return self._base.refuse(target) if isinstance(self._base, Metric) else ""

    def _score(self, text: str, target: Target, row: Row) -> float:
        return float(self._base.score(text, target, row))


class PassAtK(_OverRepeats):
    """The probability that at least one of `k` answers, drawn without replacement, is correct.

    With c of n answers correct: 1 - C(n - c, k) / C(n, k). Source: Chen et al., 'Evaluating large language models
    trained on code', 2021, the unbiased estimator.
    """

    bounds = (0.0, 1.0)

    def __init__(self, name: str, base: Metric, k: int) -> None:
        super().__init__(name, base)
        if isinstance(base, Metric) and not base.binary and type(base).__module__.startswith("hpcjobs."):
            raise ConfigError(f"task.metrics: {name!r}: {base.name} does not say right or wrong, 1 or 0")
        self._k = k

    def check(self, repeats: int) -> None:
        """Raise a ConfigError if there are fewer than `k` answers per prompt."""
        if self._k > repeats:
            raise ConfigError(
                f"task.metrics: {self.name!r} needs {self._k} answers a prompt: set task.repeats (now {repeats})"
            )

    def judge(self, answer: Completion, target: Target, row: Row) -> Score:
        """pass@k of the answers to one prompt; an answer is correct if its base score is 1."""
        texts = texts_of(answer)
        right = sum(self._score(text, target, row) >= 1 for text in texts)
        return Score(pass_at_k(len(texts), right, self._k))


class Majority(_OverRepeats):
    """The score of the most frequent answer, the first of equals; empty answers do not vote.

    Source: Wang et al., 'Self-consistency improves chain of thought reasoning in language models', 2022.
    """

    def __init__(self, name: str, base: Metric) -> None:
        super().__init__(name, base)
        self.lower_is_better = bool(getattr(base, "lower_is_better", False))

    def check(self, repeats: int) -> None:
        """Raise a ConfigError if there is only one answer per prompt."""
        if repeats < 2:
            raise ConfigError(f"task.metrics: {self.name!r} needs several answers a prompt: set task.repeats (now 1)")

    def judge(self, answer: Completion, target: Target, row: Row) -> Score:
        """The base metric's score of the most frequent answer."""
        texts = texts_of(answer)
        return Score(self._score(elected(texts, [self._ballot(text) for text in texts]), target, row))

    def failed(self, target: Target) -> Score:
        """What a sample without a completion scores by the base metric."""
        return Score(failed_score(self._base, target).value)

    def fold(self) -> Fold:
        """The mean, within the base metric's bounds."""
        return MeanFold(bounds_of(self._base))

    def _ballot(self, text: str) -> Hashable | None:
        return self._base.vote(text) if hasattr(self._base, "vote") else text.strip() or None


def pass_at_k(answers: int, right: int, k: int) -> float:
    """1 - C(answers - right, k) / C(answers, k). Raises a ValueError if there are fewer than `k` answers."""
    if k > answers:
        raise ValueError(f"pass@{k} of {answers} answers")
    return 1 - math.comb(answers - right, k) / math.comb(answers, k)


def elected(texts: Sequence[str], votes: Sequence[Hashable | None]) -> str:
    """The first text with the most frequent vote, the first of equals; the first text if there are no votes."""
    counts = Counter(vote for vote in votes if vote is not None)
    if not counts:
        return texts[0]
    return texts[votes.index(max(counts, key=counts.__getitem__))]
