"""rouge1, rouge2, rougeL and rougeLsum: rouge-score's ROUGE."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from hpcjobs.metrics.base import Metric, golds
from hpcjobs.requests import Row, Target

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer


class _Rouge(Metric):
    """The best F-measure with any target, 0 to 1, without stemming, as rouge-score's `score_multi` gives it.

    Source: Lin, 'ROUGE: a package for automatic evaluation of summaries', 2004.
    """

    normalized = False
    bounds = (0.0, 1.0)

    @cached_property
    def _scorer(self) -> RougeScorer:
        from rouge_score.rouge_scorer import RougeScorer  # a second: it imports nltk

        return RougeScorer([self.name])

    def score(self, completion: str, target: Target, row: Row) -> float:
        references = golds(target)
        return float(self._scorer.score_multi(references, completion)[self.name].fmeasure) if references else 0.0


class Rouge1(_Rouge):
    """ROUGE-1: overlap of words."""

    name = "rouge1"


class Rouge2(_Rouge):
    """ROUGE-2: overlap of word pairs."""

    name = "rouge2"


class RougeL(_Rouge):
    """ROUGE-L: longest common subsequence of words."""

    name = "rougeL"


class RougeLsum(_Rouge):
    """ROUGE-Lsum: ROUGE-L by sentence, one sentence per line."""

    name = "rougeLsum"
