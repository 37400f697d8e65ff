"""Metrics whose value is made of sums over the whole corpus of texts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import pyarrow as pa

from hpcjobs.metrics.base import Metric, Score, golds, texts_of
from hpcjobs.metrics.bootstrap import Floats
from hpcjobs.metrics.sums import SumsFold, within
from hpcjobs.requests import Completion, Row, Target


class CorpusMetric(Metric):
    """A score a sample, 0 to 100, and `width` counts a sample of whose sums the run's value is made."""

    normalized = False
    width: int
    statistics = pa.list_(pa.float64())

    @abstractmethod
    def counts(self, completion: str, references: Sequence[str]) -> tuple[float, ...]:
        """What is summed: `width` numbers."""

    @abstractmethod
    def value(self, sums: Floats) -> float:
        """The corpus' value of the sums of all counts."""

    @abstractmethod
    def sample_value(self, counts: Sequence[float]) -> float:
        """The score of one sample of its own counts."""

    def score(self, completion: str, target: Target, row: Row) -> float:
        return self.sample_value(self.counts(completion, golds(target) or [""]))

    def judge(self, answer: Completion, target: Target, row: Row) -> Score:
        """Several answers to one prompt stand in the corpus one after the other."""
        counts = [self.counts(text, golds(target) or [""]) for text in texts_of(answer)]
        return Score(sum(map(self.sample_value, counts)) / len(counts), tuple(map(sum, zip(*counts, strict=True))))

    def failed(self, target: Target) -> Score:
        """As an empty answer: the corpus' value falls by what is missing, as sacrebleu has it for an empty line."""
        return Score(0.0, self.counts("", golds(target))) if golds(target) else Score(0.0)

    def fold(self) -> SumsFold:
        return SumsFold(self.width, self.value, within(0.0, 100.0))
