"""Counts and warnings of a merge."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from hpcjobs.merge.failures import Failures
from hpcjobs.metrics import Metric


@dataclass(kw_only=True)
class Tally:
    """Counts of records; why samples have no accepted record (`problems`, by index); journals that are not used.

    `failed` are the indexes of samples without a completion.
    """

    accepted: int = 0
    failures: Failures = field(default_factory=Failures)
    failed: array[int] = field(default_factory=lambda: array("q"))
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reasons: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    foreign: int = 0
    problems: dict[int, str] = field(default_factory=dict)
    lost_journals: set[str] = field(default_factory=set)
    unnamed_journals: list[str] = field(default_factory=list)

    def count(self, rows: pa.Table) -> None:
        """Count accepted rows of results.parquet."""
        self.accepted += len(rows)
        without = self.failures.count(rows)
        self.failed.extend(rows.column("index").to_numpy()[without].tolist())
        self.prompt_tokens += pc.sum(rows.column("prompt_tokens")).as_py() or 0
        self.completion_tokens += pc.sum(rows.column("completion_tokens")).as_py() or 0
        for found in pc.value_counts(rows.column("finish_reason")).to_pylist():
            self.finish_reasons[found["values"]] += found["counts"]

    def warnings(self, metrics: Sequence[Metric] = ()) -> list[str]:
        """Warnings, one line each, of a run with these metrics."""
        warnings = [f"journal {name} is gone" for name in sorted(self.lost_journals)]
        warnings += [f"journal {name} is not used: no settled claim names it" for name in self.unnamed_journals]
        if self.foreign:
            warnings.append(f"{self.foreign} foreign records were not used")
        return warnings + self.failures.warnings(metrics)
