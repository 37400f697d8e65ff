"""perplexity per token, word and byte, and bits_per_byte."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Sequence

import pyarrow as pa

from hpcjobs.metrics.base import Metric, Score
from hpcjobs.metrics.bootstrap import Floats
from hpcjobs.metrics.fold import exponential
from hpcjobs.metrics.sums import Interval, SumsFold, in_logarithms, within
from hpcjobs.requests import Completion, Row, Target


class _LikelihoodMetric(Metric):
    """Computed from the sums of log-likelihoods and of units over all texts; lower is better.

    Source: lm-evaluation-harness 0.4, `weighted_perplexity` and `bits_per_byte`. A text that ended in an error has no
    likelihood and is not counted.
    """

    needs_target = False  # the target is the text itself
    lower_is_better = True
    tasks = ("perplexity",)
    statistics = pa.list_(pa.float64())
    interval: Interval = staticmethod(in_logarithms)

    @abstractmethod
    def units(self, answer: Completion, text: str) -> int:
        """The size of the text in this metric's unit."""

    def value(self, sums: Floats | Sequence[float]) -> float:
        """The value of the summed log-likelihoods and units."""
        return exponential(-float(sums[0]) / float(sums[1])) if sums[1] else math.nan

    def judge(self, answer: Completion, target: Target, row: Row) -> Score:
        """The score of one text. Raises a ValueError if the answer has no log-likelihood of one text."""
        if answer.likelihood is None or len(answer.likelihood.logprobs) != 1 or not isinstance(target, str):
            raise ValueError("the answer has no log-likelihood of one text")
        counts = (float(answer.likelihood.logprobs[0]), float(self.units(answer, target)))
        return Score(self.value(counts), counts)

    def fold(self) -> SumsFold:
        """A fold over the sums."""
        return SumsFold(2, self.value, self.interval)


class Perplexity(_LikelihoodMetric):
    """Perplexity per token: exp(- log-likelihoods / tokens)."""

    name = "perplexity"

    def units(self, answer: Completion, text: str) -> int:
        """Tokens of the text."""
        return answer.likelihood.tokens[0] if answer.likelihood else 0


class WordPerplexity(_LikelihoodMetric):
    """Perplexity per word; words are split at whitespace by `re.split`."""

    name = "word_perplexity"

    def units(self, answer: Completion, text: str) -> int:
        """Words of the text."""
        return len(re.split(r"\s+", text))


class BytePerplexity(_LikelihoodMetric):
    """Perplexity per UTF-8 byte."""

    name = "byte_perplexity"

    def units(self, answer: Completion, text: str) -> int:
        """UTF-8 bytes of the text."""
        return len(text.encode("utf-8", "surrogatepass"))


class BitsPerByte(BytePerplexity):
    """Bits per UTF-8 byte: log-likelihoods to base 2, what a compressor based on the model would need."""

    name = "bits_per_byte"
    interval = staticmethod(within(0.0, math.inf))

    def value(self, sums: Floats | Sequence[float]) -> float:
        """Bits per byte of the summed log-likelihoods and bytes."""
        return -float(sums[0]) / float(sums[1]) / math.log(2) if sums[1] else math.nan
