"""acc, acc_norm and acc_bytes: the likeliest option is a right one."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from hpcjobs.metrics.base import Metric, Score
from hpcjobs.metrics.bootstrap import Floats
from hpcjobs.metrics.builtin.options import OptionFold
from hpcjobs.requests import Completion, Likelihood, Row, Target


class Accuracy(Metric):
    """1.0 where the option with the greatest log-likelihood (the first of equals) is a right one, else 0.0.

    Source: lm-evaluation-harness 0.4, `ConfigurableTask.process_results`, output type multiple_choice.
    """

    name = "acc"
    tasks = ("choice",)
    binary = True
    statistics = pa.list_(pa.float64())

    def judge(self, answer: Completion, target: Target, row: Row) -> Score:
        """The statistics are the number of the (first) right option. ValueError for a target that is no option."""
        if answer.likelihood is None:
            raise ValueError("the answer has no log-likelihoods of options")
        right = right_options(target)
        if not right or max(right) >= len(answer.likelihood.logprobs) or min(right) < 0:
            raise ValueError(f"target {target!r} is not among the {len(answer.likelihood.logprobs)} options, from 0")
        return Score(float(int(np.argmax(self.weigh(answer.likelihood))) in right), (float(right[0]),))

    def failed(self, target: Target) -> Score:
        right = right_options(target)
        return Score(0.0, (float(right[0]),) if right else None)

    def weigh(self, found: Likelihood) -> Floats:
        """What the options are compared by."""
        return np.asarray(found.logprobs, np.float64)

    def fold(self) -> OptionFold:
        return OptionFold()


class AccuracyNorm(Accuracy):
    """The same of log-likelihoods divided by the options' lengths in characters."""

    name = "acc_norm"

    def weigh(self, found: Likelihood) -> Floats:
        return _per_unit(found, [len(option) for option in found.options])


class AccuracyBytes(Accuracy):
    """The same of log-likelihoods divided by the options' lengths in bytes of UTF-8."""

    name = "acc_bytes"

    def weigh(self, found: Likelihood) -> Floats:
        return _per_unit(found, [len(option.encode("utf-8", "surrogatepass")) for option in found.options])


def right_options(target: Target) -> list[int]:
    """The numbers of the right options; none where the target says none."""
    numbers = target if isinstance(target, list) else [target]
    return [number for number in numbers if isinstance(number, int)]


def _per_unit(found: Likelihood, lengths: list[int]) -> Floats:
    """Log-likelihood a character or byte; an empty option is never the likeliest."""
    logprobs, sizes = np.asarray(found.logprobs, np.float64), np.asarray(lengths, np.float64)
    weighed: Floats = np.divide(logprobs, sizes, out=np.full(len(logprobs), -np.inf), where=sizes > 0)
    return weighed
