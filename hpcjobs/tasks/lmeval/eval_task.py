"""Rows of an lm_eval task as requests, and answers as its scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hpcjobs.metrics import Score
from hpcjobs.plugins import timed
from hpcjobs.requests import Completion, Pair, Request, Row
from hpcjobs.run_folder.inputs import row_index
from hpcjobs.tasks.lmeval.codec import decode
from hpcjobs.tasks.lmeval.instances import PlannedInstance
from hpcjobs.tasks.lmeval.judge import LmEvalJudge
from hpcjobs.tasks.lmeval.prompting import generation_of
from hpcjobs.tasks.lmeval.tasks import LoadedTask, PlannedTask, load_planned
from hpcjobs.tasks.seeds import sample_seed


class LmEvalTask:
    """An lm_eval task as it was planned, with its code from the run's code/; or as `loaded`."""

    def __init__(self, code: Path, seed: int, loaded: LoadedTask | None = None) -> None:
        self._judge = LmEvalJudge(loaded or load_planned(code), PlannedTask.read(code).metrics)
        self._seed = seed

    def request(self, row: Row) -> Request:
        """The request of a row. Several log-likelihoods become one request with a pair for each."""
        return planned_request(row, self._seed)

    def judge(self, answer: Completion, row: Row) -> dict[str, Score]:
        """The scores of an answer by metric; none if it is to be predicted only."""
        with timed(f"the metrics of {row['task']}"):
            return self._judge.judge(answer, str(row["task"]), decode(str(row["doc"])), _requests(row))

    def failed(self, row: Row) -> dict[str, Score]:
        """No scores, by metric: a row without an answer is in no aggregation."""
        return self._judge.failed()


def planned_request(row: Row, seed: int = 0) -> Request:
    """The request of a row of a planned task. `seed` is the run's seed."""
    return request_of(row_index(row), str(row["id"]), _requests(row), seed)


def _requests(row: Row) -> list[PlannedInstance]:
    requests: list[PlannedInstance] = decode(str(row["requests"]))
    return requests


def request_of(index: int, name: str, requests: Sequence[PlannedInstance], seed: int) -> Request:
    """lm_eval's instances of one document as a Request. `seed` is the run's seed."""
    first = requests[0]
    own = sample_seed(seed, name)
    if first["type"] == "generate_until":
        context, arguments = first["arguments"]
        repeats, generation = int(first["repeats"] or 1), generation_of(arguments)
        return Request(
            index=index, id=name, prompt=context, seed=own, repeats=repeats, generation=generation, truncate="left"
        )
    if first["type"] == "loglikelihood_rolling":
        text = first["arguments"][0]
        return Request(index=index, id=name, prompt=text, seed=own, task="perplexity", truncate="left")
    pairs = tuple(Pair(*one["arguments"]) for one in requests)
    options = tuple(pair.continuation for pair in pairs)
    return Request(
        index=index, id=name, prompt=str(pairs[0].context), seed=own, task="choice", options=options, pairs=pairs
    )
