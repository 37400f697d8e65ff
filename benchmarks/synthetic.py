"""A finished run of any size, made in seconds: a real plan, claims and journals as ranks would have written them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.plan.eval import make_plan
from hpcjobs.run_folder.ledger.chunks import ChunkList
from hpcjobs.run_folder.ledger.claims import Counted, Lease
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity

_ROWS_AT_ONCE = 1 << 18


def write_data(path: Path, rows: int) -> None:
    """A parquet file of questions and answers of many lengths."""
    schema = pa.schema([("id", pa.string()), ("question", pa.string()), ("answer", pa.string())])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, rows, _ROWS_AT_ONCE):
            number = np.arange(start, min(rows, start + _ROWS_AT_ONCE))
            name = pc.cast(pa.array(number), pa.string())
            padding = pc.binary_repeat("word ", pa.array(number * 7919 % 23))
            columns = [_join("row-", name), _join("How many of ", name, " are there? ", padding), _join("about ", name)]
            writer.write_table(pa.table(columns, schema=schema))


def plan_synthetic(folder: Path, data: Path, ranks: int) -> RunPaths:
    """The planned run of a data file that `write_data` made."""
    values = {
        "model": {"engine": "dummy"}, "data": {"name": str(data)}, "run": {"name": "run"},
        "task": {"prompt": "{{ question }}", "target": "{{ answer }}", "metrics": ["exact_match", "contains"]},
        "cluster": {"executor": "local", "ntasks_per_node": ranks},
    }  # fmt: skip
    draft = make_plan("eval", validate(Layer(values)), folder)
    draft.write()
    return draft.paths


def settle(paths: RunPaths, ranks: int) -> None:
    """Every chunk of round 0 leased and done, chunk c by rank c % ranks, without the fsync of real ranks."""
    chunks, folder, identity = ChunkList.read(paths.chunks(0)), paths.round(0), Identity("elsewhere", 1, "1")
    for chunk in range(len(chunks)):
        rank = chunk % ranks
        lease = Lease(
            chunk=chunk,
            generation=0,
            attempt="a",
            rank=rank,
            host=f"node-{rank // 8}",
            journal=f"a-{rank}.jsonl",
            identity=identity,
        )
        verdict = Counted(chunk, lease.journal, 0, ())
        (folder / f"{chunk}.0").write_text(json.dumps(asdict(lease), separators=(",", ":")))
        (folder / f"{chunk}.done").write_text(json.dumps(asdict(verdict), separators=(",", ":")))


def write_journals(paths: RunPaths, ranks: int) -> int:
    """The journals to `settle`: lines as `Record.line` writes them; their bytes in all."""
    chunks, total = ChunkList.read(paths.chunks(0)), 0
    order, sizes = chunks.indexes.astype(np.int64), np.array(chunks.sizes())
    numbers = np.repeat(np.arange(len(sizes)), sizes)
    by_rank = np.argsort(numbers % ranks, kind="stable")
    edges = np.searchsorted((numbers % ranks)[by_rank], np.arange(ranks + 1))
    for rank in range(ranks):
        mine = by_rank[edges[rank] : edges[rank + 1]]
        with paths.journal("a", rank).open("wb") as file:
            for start in range(0, len(mine), _ROWS_AT_ONCE):
                part = mine[start : start + _ROWS_AT_ONCE]
                total += file.write(_lines(order[part], numbers[part], rank))
    return total


def _lines(index: npt.NDArray[np.int64], chunk: npt.NDArray[np.int64], rank: int) -> memoryview:
    number, error = pc.cast(pa.array(index), pa.string()), pa.array(index % 997 == 996)
    noise = [pc.cast(pa.array(index * 2_654_435_761 % prime), pa.string()) for prime in (4_294_967_291, 999_983)]
    words = _join(noise[0], " and ", pc.binary_repeat(_join(noise[1], " of "), pa.array(index * 31 % 9 + 1)))
    right = pc.if_else(pa.array(index % 3 == 0), "1.0", "0.0")
    seconds = pc.cast(pa.array(0.1 + index % 900 / 1000), pa.string())
    began = pc.cast(pa.array(1.7e9 + index / 64), pa.string())
    lines = _join(
        '{"index":', number, ',"id":"row-', number, '","chunk":', pc.cast(pa.array(chunk), pa.string()),
        ',"generation":0,"completion":"', pc.if_else(error, "", _join("It is ", number, ": \\u00e9 ", words)),
        '","finish_reason":"', pc.if_else(error, "error", "stop"),
        '","prompt_tokens":', pc.cast(pa.array(index % 50 + 20), pa.string()),
        ',"completion_tokens":', pc.cast(pa.array(index % 40), pa.string()),
        f',"rank":{rank},"attempt":"a","seconds":', seconds, ',"started_at":', began,
        ',"scores":{"exact_match":', right, ',"contains":', right, '},"error":',
        pc.if_else(error, '{"type":"ValueError","message":"too long"}', "null"), "}\n",
    )  # fmt: skip
    start, stop = (int.from_bytes(lines.buffers()[1][at : at + 4].to_pybytes(), "little") for at in (0, 4 * len(lines)))
    return memoryview(lines.buffers()[2])[start:stop]


def _join(*parts: pa.Array | str) -> pa.Array:
    return pc.binary_join_element_wise(*parts, "")
