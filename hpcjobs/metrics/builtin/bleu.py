"""bleu: sacrebleu's BLEU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from hpcjobs.metrics.bootstrap import Floats
from hpcjobs.metrics.builtin.corpus import CorpusMetric
from hpcjobs.metrics.settings import Settings

if TYPE_CHECKING:
    from sacrebleu.metrics import BLEU


Tokenizer = Literal["13a", "zh", "ja-mecab", "ko-mecab", "intl", "char", "none", "flores101", "flores200", "spm"]


class BleuSettings(Settings):
    """Options of sacrebleu's BLEU. `tokenize`: how texts are cut into words; `lowercase`: ignore case; `smooth_method`
    and `smooth_value`: what replaces counts of 0.
    """

    tokenize: Tokenizer = "13a"
    lowercase: bool = False
    smooth_method: Literal["exp", "floor", "add-k", "none"] = "exp"
    smooth_value: float | None = None


class Bleu(CorpusMetric):
    """Corpus BLEU, 0 to 100, equal to `sacrebleu.corpus_bleu`; a sample's score equals `sentence_bleu`.

    Source: Papineni et al., 'BLEU', 2002; Post, 'A call for clarity in reporting BLEU scores', 2018 (sacrebleu, by
    default with tokenizer 13a and exponential smoothing). The counts: length, length of the closest reference, matching
    n-grams of 1 to 4 words, all n-grams.
    """

    name = "bleu"
    width = 10
    settings = BleuSettings
    _chosen = BleuSettings()

    def use(self, settings: Settings) -> None:
        """Use these options; raises what sacrebleu raises for a tokenizer whose library is not installed."""
        self._chosen = BleuSettings.model_validate(settings.chosen)
        self.counts("", [""])

    @cached_property
    def _sacrebleu(self) -> BLEU:
        from sacrebleu.metrics import BLEU

        return BLEU(**self._chosen.chosen)

    def counts(self, completion: str, references: Sequence[str]) -> tuple[float, ...]:
        """The counts of one sample."""
        # Not those of `sentence_score`, to which add-k has added already.
        found = self._sacrebleu._extract_corpus_statistics([completion], [[reference] for reference in references])
        return tuple(found[0])

    def value(self, sums: Floats) -> float:
        """BLEU of the summed counts."""
        return self._value(sums.tolist(), False)

    def sample_value(self, counts: Sequence[float]) -> float:
        """Sentence BLEU, with effective order."""
        return self._value(counts, True)

    def _value(self, sums: Sequence[float], effective_order: bool) -> float:
        length, reference, *rest = map(int, sums)
        found = self._sacrebleu.compute_bleu(
            rest[:4], rest[4:], length, reference, smooth_method=self._chosen.smooth_method,
            smooth_value=self._chosen.smooth_value, effective_order=effective_order,
        )  # fmt: skip
        return float(found.score)
