"""Metrics whose value is computed from sums over the whole corpus."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import pyarrow as pa

from hpcjobs.metrics.base import Metric, Score, golds, texts_of
from hpcjobs.metrics.bootstrap import Floats
from hpcjobs.metrics.sums import SumsFold, within
from hpcjobs.requests import Completion, Row, Target


class CorpusMetric(Metric):
    """A score per sample, 0 to 100, and `width` counts per sample; the run's value is computed from their sums."""

    normalized = False
    width: int
    statistics = pa.list_(pa.float64())

    @abstractmethod
    def counts(self, completion: str, references: Sequence[str]) -> tuple[float, ...]:
        """The counts of one sample, `width` numbers."""

    @abstractmethod
    def value(self, sums: Floats) -> float:
        """The corpus value of the summed counts."""

    @abstractmethod
    def sample_value(self, counts: Sequence[float]) -> float:
        """The score of one sample from its own counts."""

    def score(self, completion: str, target: Target, row: Row) -> float:
        """The score of one text."""
        return self.sample_value(self.counts(completion, golds(target) or [""]))

    def judge(self, answer: Completion, target: Target, row: Row) -> Score:
        """The score of one sample. Several answers to one prompt are several texts of the corpus."""
        counts = [self.counts(text, golds(target) or [""]) for text in texts_of(answer)]
        return Score(sum(map(self.sample_value, counts)) / len(counts), tuple(map(sum, zip(*counts, strict=True))))

    def failed(self, target: Target) -> Score:
        """The score of an empty answer: the corpus value falls, as with an empty line in sacrebleu."""
        return Score(0.0, self.counts("", golds(target))) if golds(target) else Score(0.0)

    def fold(self) -> SumsFold:
        """A fold over the summed counts."""
        return SumsFold(self.width, self.value, within(0.0, 100.0))
