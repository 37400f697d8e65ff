"""Plan the runs of hpcjobs.Executor: calls of Python functions, from the ledger, or one call on all ranks at once."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import pyarrow as pa

from hpcjobs.config.schema import Config
from hpcjobs.config.shape import shape_of
from hpcjobs.plan.draft import Draft, draft_run
from hpcjobs.run_folder.calls import CallFacts, PackedCalls
from hpcjobs.run_folder.inputs import table_sha256
from hpcjobs.run_folder.ledger.chunks import plan_chunks
from hpcjobs.run_folder.plan import PlanData
from hpcjobs.run_folder.snapshot import Snapshot

# Not more chunks than this: so many short calls cost less than the files of the ledger would.
_MOST_CHUNKS = 2048


def make_map_plan(config: Config, packed: PackedCalls, facts: CallFacts, title: str, folder: Path) -> Draft:
    """The plan of calls of one task each, of which each rank runs what is free. Raises a UsageError."""
    count = len(packed)
    table = pa.table({"index": pa.array(range(count), pa.int64()), "id": [str(number) for number in range(count)]})
    size = max(1, count // _MOST_CHUNKS)
    data = PlanData(name=title, rows=count, sha256=table_sha256(table), columns=table.column_names)
    shape = shape_of(config.cluster, config.model.gpus_per_rank)
    draft = draft_run(
        "map", config, folder, shape, lambda run: Snapshot(), table=table, chunks=plan_chunks([1] * count, size),
        chunk_size=size, data=data, argv=[title],
    )  # fmt: skip
    return dataclasses.replace(draft, more=functools.partial(packed.write, facts=facts))


def make_tasks_plan(config: Config, packed: PackedCalls, facts: CallFacts, folder: Path) -> Draft:
    """The plan of one call by all ranks at once: a program, as of `submit script`. Raises a UsageError."""
    argv = ["-m", "hpcjobs.worker.call_task", str(folder)]
    shape = shape_of(config.cluster, 1, script=True)
    draft = draft_run("script", config, folder, shape, lambda run: Snapshot(), argv=argv)
    return dataclasses.replace(draft, more=functools.partial(packed.write, facts=facts))
