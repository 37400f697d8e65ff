"""chrf: sacrebleu's chrF."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from hpcjobs.metrics.bootstrap import Floats
from hpcjobs.metrics.builtin.corpus import CorpusMetric
from hpcjobs.metrics.settings import Settings

if TYPE_CHECKING:
    from sacrebleu.metrics import CHRF


class ChrfSettings(Settings):
    """Options of sacrebleu's chrF. `char_order`, `word_order`: the longest n-grams (`word_order` 2 is chrF++); `beta`:
    the weight of recall; `whitespace`: blanks count as characters; `eps_smoothing`: smooth as the first chrF did.
    """

    char_order: Annotated[int, Field(ge=1)] = 6
    word_order: Annotated[int, Field(ge=0)] = 0
    beta: Annotated[int, Field(ge=1)] = 2
    lowercase: bool = False
    whitespace: bool = False
    eps_smoothing: bool = False


class Chrf(CorpusMetric):
    """Corpus chrF2, 0 to 100, equal to `sacrebleu.corpus_chrf`; a sample's score equals `sentence_chrf`.

    Source: Popović, 'chrF: character n-gram F-score for automatic MT evaluation', 2015. The counts, for n-grams of 1 to
    6 characters: those of the answer, of the best reference, and common to both.
    """

    name = "chrf"
    width = 18
    settings = ChrfSettings
    _chosen = ChrfSettings()

    def use(self, settings: Settings) -> None:
        """Use these options."""
        self._chosen = ChrfSettings.model_validate(settings.chosen)
        self.width = 3 * (self._chosen.char_order + self._chosen.word_order)

    @cached_property
    def _sacrebleu(self) -> CHRF:
        from sacrebleu.metrics import CHRF

        return CHRF(**self._chosen.chosen)

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
