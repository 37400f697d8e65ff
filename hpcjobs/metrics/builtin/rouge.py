"""rouge1, rouge2, rougeL and rougeLsum: rouge-score's ROUGE."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from hpcjobs.metrics.base import Metric, golds
from hpcjobs.metrics.builtin.bleu import Tokenizer
from hpcjobs.metrics.settings import Settings
from hpcjobs.requests import Row, Target

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer


class RougeSettings(Settings):
    """Options of rouge-score: `use_stemmer` (Porter's, English) and `tokenizer`, one of sacrebleu's, for texts in other
    letters than ASCII's, of which rouge-score's own leaves nothing; it is given the text in lower case.
    """

    use_stemmer: bool = False
    tokenizer: Tokenizer | None = None


class _Rouge(Metric):
    """The best F-measure with any target, 0 to 1, without stemming, as rouge-score's `score_multi` gives it.

    Source: Lin, 'ROUGE: a package for automatic evaluation of summaries', 2004.
    """

    normalized = False
    bounds = (0.0, 1.0)
    settings = RougeSettings
    _chosen = RougeSettings()

    def use(self, settings: Settings) -> None:
        """Use these options; raises what sacrebleu raises for a tokenizer whose library is not installed."""
        self._chosen = RougeSettings.model_validate(settings.chosen)
        self.score("", "", {})

    @cached_property
    def _scorer(self) -> RougeScorer:
        from rouge_score.rouge_scorer import RougeScorer  # a second: it imports nltk

        words = None if self._chosen.tokenizer is None else _Words(self._chosen.tokenizer)
        return RougeScorer([type(self).name], use_stemmer=self._chosen.use_stemmer, tokenizer=words)

    def score(self, completion: str, target: Target, row: Row) -> float:
        references = golds(target)
        found = self._scorer.score_multi(references, completion) if references else None
        return float(found[type(self).name].fmeasure) if found else 0.0


class _Words:
    """One of sacrebleu's tokenizers, as rouge-score takes a tokenizer."""

    def __init__(self, name: str) -> None:
        from sacrebleu.metrics import BLEU

        self._sacrebleu: Any = BLEU(tokenize=name)

    def tokenize(self, text: str) -> list[str]:
        """The words of a text."""
        return str(self._sacrebleu.tokenizer(text.lower())).split()


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
