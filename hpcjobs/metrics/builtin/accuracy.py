"""acc, acc_norm and acc_bytes: whether the most likely option is correct."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from hpcjobs.metrics.base import Metric, Score
from hpcjobs.metrics.bootstrap import Floats
from hpcjobs.metrics.builtin.options import OptionFold
from hpcjobs.requests import Completion, Likelihood, Row, Target


class Accuracy(Metric):
    """1.0 if the option with the highest log-likelihood (the first of equals) is correct, else 0.0.

    Source: lm-evaluation-harness 0.4, `ConfigurableTask.process_results`, output type multiple_choice.
    """

    name = "acc"
    tasks = ("choice",)
    binary = True
    statistics = pa.list_(pa.float64())

    def judge(self, answer: Completion, target: Target, row: Row) -> Score:
        """The score of one sample; the statistics hold the number of its (first) correct option.

        Raises a ValueError for a target that is not an option.
        """
        if answer.likelihood is None:
            raise ValueError("the answer has no log-likelihoods of options")
        right = right_options(target)
        if not right or max(right) >= len(answer.likelihood.logprobs) or min(right) < 0:
            raise ValueError(f"target {target!r} is not among the {len(answer.likelihood.logprobs)} options, from 0")
        return Score(float(int(np.argmax(self.weigh(answer.likelihood))) in right), (float(right[0]),))

    def failed(self, target: Target) -> Score:
        """0.0, with the number of the correct option if it is known."""
        right = right_options(target)
        return Score(0.0, (float(right[0]),) if right else None)

    def weigh(self, found: Likelihood) -> Floats:
        """The values by which options are compared, one per option."""
        return np.asarray(found.logprobs, np.float64)

    def fold(self) -> OptionFold:
        """The mean, with accuracy by correct option."""
        return OptionFold()


class AccuracyNorm(Accuracy):
    """Accuracy by log-likelihood divided by the option's length in characters."""

    name = "acc_norm"

    def weigh(self, found: Likelihood) -> Floats:
        """Log-likelihood per character, one per option."""
        return _per_unit(found, [len(option) for option in found.options])


class AccuracyBytes(Accuracy):
    """Accuracy by log-likelihood divided by the option's length in UTF-8 bytes."""

    name = "acc_bytes"

    def weigh(self, found: Likelihood) -> Floats:
        """Log-likelihood per UTF-8 byte, one per option."""
        return _per_unit(found, [len(option.encode("utf-8", "surrogatepass")) for option in found.options])


def right_options(target: Target) -> list[int]:
    """The numbers of the correct options; empty if the target has none."""
    numbers = target if isinstance(target, list) else [target]
    return [number for number in numbers if isinstance(number, int)]


def _per_unit(found: Likelihood, lengths: list[int]) -> Floats:
    """Log-likelihood per character or byte; an empty option is never the most likely."""
    logprobs, sizes = np.asarray(found.logprobs, np.float64), np.asarray(lengths, np.float64)
    weighed: Floats = np.divide(logprobs, sizes, out=np.full(len(logprobs), -np.inf), where=sizes > 0)
    return weighed
