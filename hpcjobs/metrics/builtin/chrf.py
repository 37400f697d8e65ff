"""chrf: sacrebleu's chrF."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from hpcjobs.metrics.bootstrap import Floats
from hpcjobs.metrics.builtin.corpus import CorpusMetric

if TYPE_CHECKING:
    from sacrebleu.metrics import CHRF


class Chrf(CorpusMetric):
    """Corpus chrF2, 0 to 100, equal to `sacrebleu.corpus_chrf`; a sample's score equals `sentence_chrf`.

    Source: Popović, 'chrF: character n-gram F-score for automatic MT evaluation', 2015. The counts, for n-grams of 1 to
    6 characters: those of the answer, of the best reference, and common to both.
    """

    name = "chrf"
    width = 18

    @cached_property
    def _sacrebleu(self) -> CHRF:
        from sacrebleu.metrics import CHRF

        return CHRF()

    def counts(self, completion: str, references: Sequence[str]) -> tuple[float, ...]:
        """The counts of one sample."""
        found = self._sacrebleu._extract_corpus_statistics([completion], [[reference] for reference in references])
        return tuple(found[0])

    def value(self, sums: Floats) -> float:
        """chrF2 of the summed counts."""
        return self.sample_value(sums.tolist())

    def sample_value(self, counts: Sequence[float]) -> float:
        """chrF2 of one sample's counts."""
        return float(self._sacrebleu._compute_f_score(counts))
