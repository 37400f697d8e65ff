"""On a rank: turn answers into lm_eval's responses, and score them by its filters and metrics."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Mapping, Sequence
from numbers import Number
from typing import TYPE_CHECKING

from hpcjobs.metrics import Score
from hpcjobs.requests import Completion, Likelihood
from hpcjobs.tasks.lmeval.codec import encode
from hpcjobs.tasks.lmeval.instances import PlannedInstance
from hpcjobs.tasks.lmeval.tasks import LoadedTask, MetricName

if TYPE_CHECKING:
    from lm_eval.api.task import Task


class LmEvalJudge:
    """Scores answers to documents of `loaded` by its `metrics`."""

    def __init__(self, loaded: LoadedTask, metrics: Sequence[MetricName]) -> None:
        self._loaded, self._metrics = loaded, {(metric.metric, metric.filter): metric for metric in metrics}
        self._places = {name: number for number, name in enumerate(sorted(loaded.tasks))}

    def judge(
        self, answer: Completion, task: str, doc: object, requests: Sequence[PlannedInstance]
    ) -> dict[str, Score]:
        """The scores by metric; metrics that do not apply to this document are left out, as in lm_eval.

        If the item that lm_eval aggregates is not a float, or there are several tasks, it is kept in the statistics, as
        JSON of [the task's number, item]. A metric that raises has no score, with its error; the others have theirs.
        """
        if not self._metrics:
            return {}
        try:
            return self._scores(task, self.results(answer, task, doc, requests))
        except Exception:  # of one metric, which costs the others nothing; raised again if there are no others
            functions = _functions(self._loaded.tasks[task])
            if len(functions) < 2:
                raise
            return self._one_by_one(functions, answer, task, doc, requests)

    def _one_by_one(
        self, functions: Mapping[str, object], answer: Completion, task: str, doc: object,
        requests: Sequence[PlannedInstance],
    ) -> dict[str, Score]:  # fmt: skip
        code, scores = self._loaded.tasks[task], dict[str, Score]()
        try:
            for name, function in functions.items():
                code._metric_fn_list = {name: function}
                own = [metric.text for metric in self._metrics.values() if metric.aggregation == name]
                try:
                    scores |= self._scores(task, self.results(answer, task, doc, requests))
                except Exception as error:
                    scores |= dict.fromkeys(own, Score.none(error))
        finally:
            code._metric_fn_list = functions
        return scores

    def _scores(self, task: str, results: Mapping[tuple[str, str], object]) -> dict[str, Score]:
        scores = dict[str, Score]()
        for key, item in results.items():
            metric = self._metrics.get(key)
            if metric is not None:
                plain = _plain(item)
                whole = plain is not None and len(self._places) == 1 and self._is_float(task, metric, item)
                value = self._alone(task, metric, item) if plain is None else plain
                scores[metric.text] = Score(value, None if whole else encode([self._places[task], item]))
        return scores

    def failed(self) -> dict[str, Score]:
        """The scores of a document without an answer: none, as no aggregation of lm_eval has an item for it."""
        return {metric.text: Score(math.nan) for metric in self._metrics.values()}

    def results(
        self, answer: Completion, task: str, doc: object, requests: Sequence[PlannedInstance]
    ) -> dict[tuple[str, str], object]:
        """What `process_results` returns, by (metric, filter). Raises what the task's code raises."""
        from lm_eval.api.instance import Instance

        code, responses = self._loaded.tasks[task], _responses(answer, requests)
        instances = [
            Instance(one["type"], doc, one["arguments"], one["idx"], (task, 0, one["repeats"]), list(given))
            for one, given in zip(requests, responses, strict=True)
        ]
        code._instances = instances
        code.apply_filters()
        found: dict[tuple[str, str], object] = {}
        for key in instances[0].filtered_resps:
            metrics = code.process_results(doc, [instance.filtered_resps[key] for instance in instances])
            found |= {(metric, key): item for metric, item in metrics.items()}
        return found

    def _is_float(self, task: str, metric: MetricName, item: object) -> bool:
        """Whether the item comes back as it is from a column of floats, as far as its aggregation can tell."""
        from lm_eval.api.metrics import mean

        return isinstance(item, float) or self._loaded.tasks[task].aggregation().get(metric.aggregation, mean) is mean

    def _alone(self, task: str, metric: MetricName, item: object) -> float:
        """The metric's value for this item alone, so that samples can be compared; NaN if it has none."""
        function = self._loaded.tasks[task].aggregation().get(metric.aggregation)
        quiet = contextlib.redirect_stdout(io.StringIO())
        with warnings.catch_warnings(), quiet, contextlib.suppress(Exception):  # many need more than one
            warnings.simplefilter("ignore")
            return float(function([item]))
        return math.nan


def _functions(task: Task) -> dict[str, object]:
    """The functions of the metrics that lm_eval calls one after another; empty if the task scores in another way."""
    asked = getattr(task, "OUTPUT_TYPE", None) == "generate_until" and not callable(task.get_config("process_results"))
    return dict(getattr(task, "_metric_fn_list", {})) if asked else {}


def _responses(answer: Completion, requests: Sequence[PlannedInstance]) -> list[Sequence[object]]:
    """The answers to each request of a document, as many as its `repeats`."""
    times = [int(one["repeats"] or 1) for one in requests]
    if requests[0]["type"] == "generate_until":
        texts = list(answer.texts or (answer.text,))
        return [texts if len(texts) == times[0] else [texts[0]] * times[0]]
    likelihood = answer.likelihood or Likelihood((), (), ())
    if requests[0]["type"] == "loglikelihood_rolling":
        return [[likelihood.logprobs[0]] * times[0]]
    pairs = zip(likelihood.logprobs, likelihood.greedy, strict=True)
    return [[pair] * often for pair, often in zip(pairs, times, strict=True)]


def _plain(item: object) -> float | None:
    """The item as a finite number; None if it is anything else."""
    if isinstance(item, Number) and not isinstance(item, complex):
        value = float(item)  # type: ignore[arg-type]
        return value if math.isfinite(value) else None
    return None
