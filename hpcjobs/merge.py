"""Merge: proves that nothing is missing, puts all results in input order, and folds the scores."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

import hpcjobs
from hpcjobs.acceptance import Acceptance, unnamed_journals
from hpcjobs.config import Config
from hpcjobs.data import Inputs
from hpcjobs.disk import Space, bytes_text, disk_errors, merge_need
from hpcjobs.files import Together, json_text
from hpcjobs.journal import read_journal
from hpcjobs.leftovers import remove_leftovers
from hpcjobs.metrics import Board, Metric, find_metrics
from hpcjobs.paths import RunPaths
from hpcjobs.plan import Plan
from hpcjobs.records import Record
from hpcjobs.resolve import read_config
from hpcjobs.results import ResultsWriter, rows_of, schema_of
from hpcjobs.snapshot import import_as_planned
from hpcjobs.spill import Spill

log = logging.getLogger(__name__)


@dataclass
class Tally:
    """What was seen while merging."""

    accepted: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reasons: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    foreign: int = 0
    superseded: int = 0
    problems: dict[int, str] = field(default_factory=dict)
    lost_journals: set[str] = field(default_factory=set)
    unnamed_journals: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Merged:
    """What a merge came to; `missing` has the indexes without an accepted result."""

    rows: int
    accepted: int
    missing: Sequence[int]
    metrics: Mapping[str, Any]

    @property
    def complete(self) -> bool:
        return not self.missing


def merge(paths: RunPaths) -> Merged:
    """Write results.parquet, missing.jsonl and metrics.json from the journals; running it again gives the same.

    Raises MergeError for a journal line that no crash can make, and DiskFullError where there is no room: then
    all three stay as they were.
    """
    remove_leftovers(paths.root)
    need, space = merge_need(paths), Space.of(paths.root)
    if space.free < need:
        free = f"{bytes_text(space.free)} are free on the file system at {space.mount}"
        log.warning("the merge may need %s, and %s", bytes_text(need), free)
    with disk_errors(paths.results, need=need, next_command=f"hpcjobs merge {paths.root}"):
        return _merge(paths)


def _merge(paths: RunPaths) -> Merged:
    config, plan, inputs = read_config(paths.config), Plan.read(paths.plan), Inputs(paths.data)
    rounds = [Acceptance(paths, number, plan.rows) for number in paths.rounds()]
    import_as_planned(paths, plan.code)
    measures = find_metrics(config.task.metrics)
    board, tally, missing = Board(measures, config.task), Tally(), list[int]()
    with Together() as rest, _writer(paths, config, inputs, measures) as writer:
        with Spill(paths.root, plan.rows) as spill:
            _collect(paths, rounds, spill, tally)
            for indexes, records in spill.buckets(plan.rows):
                chosen = _choose(records, inputs, indexes, tally)
                missing += [index for index in indexes if index not in chosen]
                ordered = [chosen[index] for index in sorted(chosen)]
                _count(ordered, tally)
                asked = inputs.rows(indexes.start, indexes.stop)
                keep = pa.array([record.index - indexes.start for record in ordered], pa.int64())
                rows = rows_of(ordered, asked.take(keep), writer.schema)
                board.add(rows)
                writer.write(rows)
        metrics = board.summary()
        rest.write(paths.missing, "".join(_missing_line(index, inputs, rounds, tally) for index in missing))
        rest.write(paths.metrics, json_text(board.grouped(_metrics_json(config, plan, tally, missing, metrics))))
    return Merged(plan.rows, tally.accepted, missing, metrics)


def _writer(paths: RunPaths, config: Config, inputs: Inputs, metrics: Sequence[Metric]) -> ResultsWriter:
    return ResultsWriter(paths.results, schema_of(metrics, inputs.schema, config.task))


def _collect(paths: RunPaths, rounds: Sequence[Acceptance], spill: Spill, tally: Tally) -> None:
    """Every accepted record into the spill, earlier rounds first."""
    named: set[str] = set()
    for acceptance in rounds:
        for name in acceptance.journals():
            named.add(name)
            try:
                for record in read_journal(paths.ranks / name):
                    _sift(name, record, acceptance, spill, tally)
            except FileNotFoundError:
                tally.lost_journals.add(name)
                log.warning("journal %s is gone", name)
    tally.unnamed_journals = [path.name for path in unnamed_journals(paths, named)]
    for name in tally.unnamed_journals:
        log.warning("journal %s is not used: no settled claim names it", name)


def _sift(journal: str, record: Record, acceptance: Acceptance, spill: Spill, tally: Tally) -> None:
    if f"{record.attempt}-{record.rank}.jsonl" != journal:
        tally.foreign += 1  # a file under another one's name
    elif acceptance.accepts(journal, record):
        spill.add(record)
    else:
        tally.superseded += 1


def _choose(records: Sequence[Record], inputs: Inputs, indexes: range, tally: Tally) -> dict[int, Record]:
    """One record a sample, the first journal's. A line that stands twice counts once.

    A journal with two lines that differ, or a foreign id, does not count for this sample; a later round's may.
    """
    ids = inputs.ids(indexes.start, indexes.stop)
    chosen, wrong = dict[int, Record](), set[tuple[int, str, int]]()
    for record in records:
        source, other = (record.index, record.attempt, record.rank), chosen.get(record.index)
        tally.duplicates += other is not None
        if other and (other.attempt, other.rank) != source[1:]:
            continue
        right_id = ids[record.index - indexes.start]
        tally.foreign += record.id != right_id
        if problem := _problem(record, other, right_id):
            tally.problems[record.index] = problem
            chosen.pop(record.index, None)
            wrong.add(source)
        elif source not in wrong:
            chosen.setdefault(record.index, record)
    return chosen


def _problem(record: Record, other: Record | None, right_id: str) -> str | None:
    if record.id != right_id:
        return f"its record has the foreign id {record.id!r}"
    return "its journal has two records that differ" if other not in (None, record) else None


def _count(records: Sequence[Record], tally: Tally) -> None:
    for record in records:
        tally.accepted += 1
        tally.errors += record.error is not None
        tally.prompt_tokens += record.prompt_tokens
        tally.completion_tokens += record.completion_tokens
        tally.finish_reasons[record.finish_reason] += 1


def _missing_line(index: int, inputs: Inputs, rounds: Sequence[Acceptance], tally: Tally) -> str:
    reason = tally.problems.get(index) or _reason(index, rounds, tally)
    line = {"index": index, "id": inputs.ids(index, index + 1)[0], "reason": reason}
    return json.dumps(line, ensure_ascii=False) + "\n"


def _reason(index: int, rounds: Sequence[Acceptance], tally: Tally) -> str:
    for acceptance in reversed(rounds):
        chunk = acceptance.chunk_of(index)
        if chunk is None:
            continue
        journal = acceptance.holder(chunk, index)
        if journal is None:
            return f"chunk {chunk} was never started"
        if journal in tally.lost_journals:
            return f"journal {journal} is gone"
        if chunk in acceptance.unfinished:
            return f"chunk {chunk} was left unfinished by {journal.removesuffix('.jsonl')}"
        return f"journal {journal} has no record of it"
    return "not in any round"


def _metrics_json(
    config: Config, plan: Plan, tally: Tally, missing: Sequence[int], metrics: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "complete": not missing,
        "metrics": metrics,
        "counts": {
            "rows": plan.rows, "accepted": tally.accepted, "missing": len(missing), "errors": tally.errors,
            "duplicates": tally.duplicates, "foreign": tally.foreign,
            "finish_reasons": dict(sorted(tally.finish_reasons.items())),
            "prompt_tokens": tally.prompt_tokens, "completion_tokens": tally.completion_tokens,
        },
        "warnings": _warnings(tally),
        "provenance": {
            "run": plan.run, "job": plan.job, "model": plan.model, "data": plan.data, "seed": config.run.seed,
            "generation": config.task.generation.model_dump(mode="json"), "config_sha256": plan.config_sha256,
            "code": plan.code, "merged_with": hpcjobs.__version__, "merged_at": time.time(),
        },
    }  # fmt: skip


def _warnings(tally: Tally) -> list[str]:
    said = [f"journal {name} is gone" for name in sorted(tally.lost_journals)]
    said += [f"journal {name} is not used: no settled claim names it" for name in tally.unnamed_journals]
    if tally.foreign:
        said.append(f"{tally.foreign} foreign records were not used")
    if tally.errors:
        said.append(f"{tally.errors} samples ended in an error and count 0 in every metric")
    return said
