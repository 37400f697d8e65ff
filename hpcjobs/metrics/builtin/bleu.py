"""bleu: sacrebleu's BLEU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from hpcjobs.metrics.bootstrap import Floats
from hpcjobs.metrics.builtin.corpus import CorpusMetric

if TYPE_CHECKING:
    from sacrebleu.metrics import BLEU


class Bleu(CorpusMetric):
    """Corpus BLEU, 0 to 100, equal to `sacrebleu.corpus_bleu`; a sample's score equals `sentence_bleu`.

    Source: Papineni et al., 'BLEU', 2002; Post, 'A call for clarity in reporting BLEU scores', 2018 (sacrebleu,
    tokenizer 13a, exponential smoothing). The counts: length, length of the closest reference, matching n-grams of 1 to
    4 words, all n-grams.
    """

    name = "bleu"
    width = 10

    @cached_property
    def _sacrebleu(self) -> BLEU:
        from sacrebleu.metrics import BLEU

        return BLEU(effective_order=True)

    def counts(self, completion: str, references: Sequence[str]) -> tuple[float, ...]:
        """The counts of one sample."""
        found = self._sacrebleu.sentence_score(completion, list(references))
        return (found.sys_len, found.ref_len, *found.counts, *found.totals)

    def value(self, sums: Floats) -> float:
        """BLEU of the summed counts."""
        return self._value(sums.tolist(), False)

    def sample_value(self, counts: Sequence[float]) -> float:
        """Sentence BLEU, with effective order."""
        return self._value(counts, True)

    def _value(self, sums: Sequence[float], effective_order: bool) -> float:
        length, reference, *rest = map(int, sums)
        found = self._sacrebleu.compute_bleu(
            rest[:4], rest[4:], length, reference, smooth_method="exp", effective_order=effective_order
        )
        return float(found.score)
