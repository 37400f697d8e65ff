"""Merge eval and generate: check that nothing is missing, sort the results by input order, and aggregate scores."""

from __future__ import annotations

import json
import logging
from array import array
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hpcjobs.config import Config
from hpcjobs.config.resolve import read_config
from hpcjobs.merge.deduplicate import choose
from hpcjobs.merge.external_sort import MOST_BYTES, MOST_FILES, MOST_ROWS, Spill
from hpcjobs.merge.prefetch import ahead
from hpcjobs.merge.results import ROW_GROUP, ResultsWriter, rows_of, schema_of
from hpcjobs.merge.standing import better_standing
from hpcjobs.merge.tally import Tally
from hpcjobs.metrics import SCORING, Aggregator, Metric
from hpcjobs.run_folder.disk import Space, bytes_text, disk_errors, merge_need
from hpcjobs.run_folder.files import json_text
from hpcjobs.run_folder.inputs import Inputs
from hpcjobs.run_folder.journal.table import journal_schema, read_columns
from hpcjobs.run_folder.ledger.acceptance import Acceptance, read_rounds, unnamed_journals
from hpcjobs.run_folder.leftovers import remove_leftovers
from hpcjobs.run_folder.merged import Merged
from hpcjobs.run_folder.metrics_file import with_verdict
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan
from hpcjobs.run_folder.planned import allowed_changes
from hpcjobs.run_folder.provenance import merged_facts
from hpcjobs.run_folder.snapshot import import_as_planned
from hpcjobs.run_folder.table_files import TableSwitch
from hpcjobs.tasks.eval_task import run_metrics

log = logging.getLogger(__name__)


def merge(paths: RunPaths) -> Merged:
    """Write results.parquet, missing.jsonl and metrics.json from the journals. Repeating it gives the same files.

    If the table that stands has more samples, it is kept (`Merged.kept`).
    Raises a MergeError for a broken journal line, and a DiskFullError; then all three files stay as they were.
    """
    remove_leftovers(paths.root)
    need, space = merge_need(paths), Space.of(paths.root)
    if space.free < need:
        free = f"{bytes_text(space.free)} are free on the file system at {space.mount}"
        log.warning("the merge may need %s, and %s", bytes_text(need), free)
    with disk_errors(paths.results, need=need, next_command=f"hpcjobs merge {paths.root}"):
        return _merge(paths)


def _merge(paths: RunPaths) -> Merged:
    config, plan, inputs = read_config(paths.config), Plan.read(paths.plan), Inputs.streamed(paths.data)
    rounds = read_rounds(paths, plan.rows)
    import_as_planned(paths, plan.code)
    measures = run_metrics(config.task, paths)
    aggregator, tally, missing = Aggregator(measures, config.task, plan.code.revisions), Tally(), array("q")
    schema = schema_of(measures, inputs.schema, config.task)
    with TableSwitch(paths) as rest, ResultsWriter(paths.results, schema, rest) as writer:
        kept = _kept(journal_schema(schema), schema)
        with Spill(paths.root, plan.rows, kept, _bucket(paths, plan.rows)) as spill:
            _collect(paths, rounds, journal_schema(schema), spill, tally)
            for rows in ahead(_results(spill, plan.rows, inputs, schema, tally, missing)):
                aggregator.add(rows)
                writer.write(rows)
        metrics = aggregator.summary()
        rest.write(paths.missing, _missing_lines(missing, inputs, rounds, tally))
        values = {"complete": not missing, "metrics": metrics} | _facts(paths, config, plan, tally, missing, measures)
        rest.write(paths.metrics, json_text(with_verdict(aggregator.told(values))))
        if kept := better_standing(paths, plan, tally.accepted, tally.failures.errors):
            rest.keep()
    return Merged(
        rows=plan.rows, accepted=tally.accepted, missing=missing, metrics=metrics, failed=tally.failed, kept=kept
    )


def _kept(journals: pa.Schema, results: pa.Schema) -> pa.Schema:
    """The columns to sort: results, what distinguishes two records of a sample, and the journal's number."""
    names = [name for name in journals.names if name in (*results.names, "seconds", "started_at")]
    return pa.schema([*(journals.field(name) for name in names), pa.field("source", pa.int32())])


def _bucket(paths: RunPaths, rows: int) -> int:
    """Rows per bucket: whole row groups of some megabytes, in not too many files."""
    size = sum(path.stat().st_size for path in paths.journals())
    groups = min(MOST_BYTES * rows // max(size, 1), MOST_ROWS) // ROW_GROUP
    return max(1, groups, -(-rows // (MOST_FILES * ROW_GROUP))) * ROW_GROUP


def _collect(paths: RunPaths, rounds: Sequence[Acceptance], schema: pa.Schema, spill: Spill, tally: Tally) -> None:
    """Add every accepted record to the spill, earlier rounds first."""
    sources: dict[str, int] = {}
    for acceptance, name, table in ahead(_journals(paths, rounds, schema, tally)):
        source = sources.setdefault(name, len(sources))
        kept = _sift(name, table, acceptance, tally)
        kept = kept.append_column("source", pa.array(np.full(len(kept), source, np.int32)))
        spill.add(kept.select(spill.schema.names))
    named = {name for acceptance in rounds for name in acceptance.journals()}
    tally.unnamed_journals = [path.name for path in unnamed_journals(paths, named)]
    for name in tally.unnamed_journals:
        log.warning("journal %s is not used: no settled claim names it", name)


def _journals(
    paths: RunPaths, rounds: Sequence[Acceptance], schema: pa.Schema, tally: Tally
) -> Iterator[tuple[Acceptance, str, pa.Table]]:
    """The records of each round's journals, with the journal's name."""
    for acceptance in rounds:
        for name in acceptance.journals():
            try:
                for table in read_columns(paths.ranks / name, schema):
                    yield acceptance, name, table
            except FileNotFoundError:
                tally.lost_journals.add(name)
                log.warning("journal %s is gone", name)


def _sift(journal: str, table: pa.Table, acceptance: Acceptance, tally: Tally) -> pa.Table:
    """The accepted records of a table."""
    attempt, _, rank = journal.removesuffix(".jsonl").rpartition("-")
    own_rank = pc.equal(pc.cast(table.column("rank"), pa.string()), rank)
    own = np.asarray(pc.and_(pc.equal(table.column("attempt"), attempt), own_rank).to_numpy(), np.bool_)
    counts = acceptance.counting(journal, *(table.column(name).to_numpy() for name in ("index", "chunk", "generation")))
    tally.foreign += int((~own).sum())  # a file under another one's name
    counts &= own
    return table if counts.all() else table.filter(pa.array(counts))


def _results(
    spill: Spill, rows: int, inputs: Inputs, schema: pa.Schema, tally: Tally, missing: array[int]
) -> Iterator[pa.Table]:
    """The rows of results.parquet, one row group at a time. Indexes without a record are added to `missing`."""
    for indexes, found in spill.buckets(rows):
        input_rows = inputs.rows(indexes.start, indexes.stop)
        order = choose(found, input_rows.column("id"), indexes.start, tally)
        index = found.column("index").to_numpy()[order]
        for start in range(indexes.start, indexes.stop, ROW_GROUP):
            stop = min(start + ROW_GROUP, indexes.stop)
            low, high = np.searchsorted(index, (start, stop))
            part, places = input_rows.slice(start - indexes.start, stop - start), index[low:high] - start
            if len(places) < stop - start:
                missing.extend((np.setdiff1d(np.arange(stop - start), places) + start).tolist())
                part = part.take(pa.array(places))
            made = rows_of(pa.table(found.take(pa.array(order[low:high]))), part, schema)
            tally.count(made)
            yield made


def _missing_lines(missing: array[int], inputs: Inputs, rounds: Sequence[Acceptance], tally: Tally) -> Iterator[bytes]:
    """The lines of missing.jsonl, in blocks."""
    indexes = np.frombuffer(missing, np.int64)
    for group in np.split(indexes, np.flatnonzero(np.diff(indexes // ROW_GROUP)) + 1):
        if not len(group):
            continue
        first = int(group[0])
        ids = inputs.rows(first, int(group[-1]) + 1).column("id").take(pa.array(group - first)).to_pylist()
        lines = [_missing_line(index, name, rounds, tally) for index, name in zip(group.tolist(), ids, strict=True)]
        yield "".join(lines).encode()


def _missing_line(index: int, name: str, rounds: Sequence[Acceptance], tally: Tally) -> str:
    reason = tally.problems.get(index) or _reason(index, rounds, tally)
    return json.dumps({"index": index, "id": name, "reason": reason}, ensure_ascii=False) + "\n"


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


def _facts(
    paths: RunPaths, config: Config, plan: Plan, tally: Tally, missing: Sequence[int], measures: Sequence[Metric]
) -> dict[str, object]:
    """What metrics.json has beside the metrics."""
    return {
        "max_errors": config.run.max_errors,
        "counts": {
            "rows": plan.rows, "accepted": tally.accepted, "missing": len(missing), "errors": tally.failures.errors,
            "metric_errors": tally.failures.metric_errors,
            "duplicates": tally.duplicates, "foreign": tally.foreign,
            "finish_reasons": dict(sorted(tally.finish_reasons.items())),
            "prompt_tokens": tally.prompt_tokens, "completion_tokens": tally.completion_tokens,
        },
        "warnings": [*plan.notes, *allowed_changes(paths), *tally.warnings(measures)],
        "provenance": merged_facts(plan, config.run.seed)
        | {"scoring": SCORING, "generation": config.task.generation.model_dump(mode="json")},
    }  # fmt: skip
