"""Rows of an lm_eval task as requests, and answers as its scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcjobs.metrics import Score
from hpcjobs.requests import Completion, Pair, Request
from hpcjobs.tasks.lmeval.codec import decode
from hpcjobs.tasks.lmeval.judge import LmEvalJudge
from hpcjobs.tasks.lmeval.prompting import generation_of
from hpcjobs.tasks.lmeval.tasks import PlannedTask, load_planned
from hpcjobs.tasks.seeds import sample_seed


class LmEvalTask:
    """An lm_eval task as it was planned, with its code from the run's code/."""

    def __init__(self, code: Path, seed: int) -> None:
        self._judge, self._seed = LmEvalJudge(load_planned(code), PlannedTask.read(code).metrics), seed

    def request(self, row: Mapping[str, Any]) -> Request:
        """The request of a row. Several log-likelihoods become one request with a pair for each."""
        return request_of(row, decode(row["requests"]), self._seed)

    def judge(self, answer: Completion, row: Mapping[str, Any]) -> dict[str, Score]:
        """The scores of an answer by metric."""
        return self._judge.judge(answer, row["task"], decode(row["doc"]), decode(row["requests"]))

    def failed(self, row: Mapping[str, Any]) -> dict[str, Score]:
        """The scores of a row without an answer."""
        return self._judge.failed(row["task"])


def request_of(row: Mapping[str, Any], requests: Sequence[Mapping[str, Any]], seed: int) -> Request:
    """lm_eval's instances of one document as a Request. `seed` is the run's seed."""
    index, name, first = row["index"], row["id"], requests[0]
    own = sample_seed(seed, name)
    if first["type"] == "generate_until":
        context, arguments = first["arguments"]
        repeats, generation = int(first["repeats"] or 1), generation_of(arguments)
        return Request(index, name, context, own, repeats=repeats, generation=generation)
    if first["type"] == "loglikelihood_rolling":
        return Request(index, name, first["arguments"][0], own, task="perplexity")
    pairs = tuple(Pair(*one["arguments"]) for one in requests)
    options = tuple(pair.continuation for pair in pairs)
    return Request(index, name, str(pairs[0].context), own, task="choice", options=options, pairs=pairs)
