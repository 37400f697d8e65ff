"""Plan a sweep: a program that runs once for each point; as many ranks as there are take them from the ledger."""

from __future__ import annotations

import itertools
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from hpcjobs.config.schema import Config, DataConfig
from hpcjobs.config.shape import shape_of
from hpcjobs.errors import UsageError
from hpcjobs.plan.command import Command
from hpcjobs.plan.draft import Draft, draft_run
from hpcjobs.run_folder.inputs import table_sha256, user_columns, user_row
from hpcjobs.run_folder.json_columns import python_rows
from hpcjobs.run_folder.ledger.chunks import plan_chunks
from hpcjobs.run_folder.plan import PlanData
from hpcjobs.run_folder.snapshot import Snapshot
from hpcjobs.tasks.datasets import load_table
from hpcjobs.tasks.sweep import SweepTask

# More points than this are more likely a mistake in a product than a sweep.
_MOST = 1_000_000


def make_sweep_plan(
    config: Config, command: Command, argv: Sequence[str], code: Snapshot, folder: Path | None, notes: list[str]
) -> Draft:
    """The plan of a sweep. Every point's words are rendered now. Raises a UsageError that names the point."""
    table = _points(config)
    columns = user_columns([name for name in table.column_names if name != "index"])
    for name in columns:
        if not re.fullmatch(r"[^\W\d]\w*", name):
            raise UsageError(f"sweep: {name!r} cannot be named in {{{{ }}}}: use letters, digits and _")
    if not len(table):
        raise UsageError("sweep: there is no point")
    task, nulls = SweepTask(argv, config.cluster.env, table.column_names), Counter[str]()
    for row in python_rows(table):
        try:
            words, env = task.words(row)
        except Exception as error:  # a template may raise anything
            raise UsageError(f"sweep, point {row['id']}: {error}") from None
        if any("\0" in text for text in (*words, *env.values())):
            raise UsageError(f"sweep, point {row['id']}: a NUL character, which no program can be given")
        nulls.update(name for name in task.columns if user_row(row).get(name) is None)
    notes += [f"{name} is null in {count} of {len(table)} points, written as None" for name, count in nulls.items()]
    if unused := sorted(set(columns) - task.columns - {"id", "index"}):
        notes.append(f"{', '.join(unused)} in no argument and no cluster.env: the program has HPCJOBS_POINT, as JSON")
    if config.cluster.ntasks_per_node is None and command.launcher:
        raise UsageError(f"{command.launcher} in a sweep: give --ntasks-per-node, how many points a node runs at once")
    title = config.sweep if isinstance(config.sweep, str) else " x ".join(config.sweep or ())
    data = PlanData(name=title, rows=len(table), sha256=table_sha256(table), columns=table.column_names)
    shape = shape_of(config.cluster, 1)
    return draft_run(
        "sweep", config, folder, shape, lambda run: code, table=table, chunks=plan_chunks([1] * len(table), 1),
        chunk_size=1, data=data, argv=argv, notes=notes,
    )  # fmt: skip


def _points(config: Config) -> pa.Table:
    """The points as a table: the lines of a file, or the product of lists, the last name fastest."""
    if isinstance(config.sweep, str):
        return load_table(config.data.model_copy(update={"name": config.sweep}))
    axes: Mapping[str, Sequence[object]] = config.sweep or {}
    if empty := [name for name, values in axes.items() if not values]:
        raise UsageError(f"sweep.{empty[0]} is empty: there is no point")
    count = 1
    for values in axes.values():
        count *= len(values)
    if count > _MOST:
        raise UsageError(f"sweep: {count:,} points; the most is {_MOST:,}")
    points = (dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "points.jsonl"
        file.write_text("".join(json.dumps(point) + os.linesep for point in points))
        return load_table(DataConfig(name=str(file), max_samples=config.data.max_samples))
