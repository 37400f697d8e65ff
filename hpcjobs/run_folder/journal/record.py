"""A journal record: the result of one sample."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import get_origin, get_type_hints

from hpcjobs.requests import MetricError, SampleError

_SPARSE = {"sparse": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line of a journal.

    This is the one list of a journal's fields: what JSON may hold (below), Arrow's schema (table.py) and the types in
    results.parquet (merge/results.py) are derived from it. Sparse fields are written only if they are
    not empty. `error` is why there is no completion, `metric_errors` why a metric has no score of the one that there is
    (earlier versions wrote both to `error`). `statistics` are what a metric sums over samples, beside the sample's own
    score: numbers, or a text.
    """

    index: int
    id: str
    chunk: int
    generation: int
    completion: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    rank: int
    attempt: str
    seconds: float
    started_at: float
    scores: Mapping[str, float | None] = field(default_factory=dict)
    error: SampleError | None = None
    metric_errors: Sequence[MetricError] = field(default=(), metadata=_SPARSE)
    completions: Sequence[str] = field(default=(), metadata=_SPARSE)
    choice_logprobs: Sequence[float | None] = field(default=(), metadata=_SPARSE)
    choice_greedy: Sequence[bool] = field(default=(), metadata=_SPARSE)
    choice_tokens: Sequence[int] = field(default=(), metadata=_SPARSE)
    statistics: Mapping[str, Sequence[float | None] | str] = field(default_factory=dict, metadata=_SPARSE)

    def line(self) -> bytes:
        """The record as one line of ASCII JSON with a final `\\n`. Any text is read back exactly, lone surrogates too.
        """
        values = {name: getattr(self, name) for name in self.__slots__}
        values["error"] = {"type": self.error.type, "message": self.error.message} if self.error else None
        values["metric_errors"] = [asdict(one) for one in self.metric_errors]
        values["scores"] = {name: _finite(value) for name, value in self.scores.items()}
        values["choice_logprobs"] = [_finite(value) for value in self.choice_logprobs]
        values["statistics"] = {
            name: value if isinstance(value, str) else [_finite(one) for one in value]
            for name, value in self.statistics.items()
        }
        for name in _SPARSE_NAMES:
            if not values[name]:
                del values[name]
        return json.dumps(values, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> Record:
        """The record in a line without its newline. Raises a ValueError that says what is wrong."""
        values = json.loads(line)
        if not isinstance(values, dict):
            raise ValueError("not an object")
        error, others = values.pop("error", None), values.pop("metric_errors", ())
        try:
            failed = tuple(MetricError(**other) for other in others)
            record = cls(**values, error=SampleError(**error) if error else None, metric_errors=failed)
        except TypeError as problem:
            raise ValueError(str(problem)) from None
        for name, kinds in _JSON_TYPES:
            value: object = getattr(record, name)
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise ValueError(f"{name} is {value!r}")
        return record


FIELD_TYPES: Mapping[str, type] = get_type_hints(Record)  # by name, in the order of the line
REQUIRED = tuple(one.name for one in fields(Record) if one.default is one.default_factory is MISSING)
_SPARSE_NAMES = tuple(one.name for one in fields(Record) if one.metadata.get("sparse"))


def _json_types(kind: type) -> tuple[type, ...]:
    """The Python types of a JSON value for a field of type `kind`."""
    containers: dict[type | None, tuple[type, ...]] = {Sequence: (list, tuple), Mapping: (dict,)}
    return containers.get(get_origin(kind)) or ((int, float) if kind is float else (kind,))


_JSON_TYPES = tuple((name, _json_types(kind)) for name, kind in FIELD_TYPES.items() if name != "error")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
