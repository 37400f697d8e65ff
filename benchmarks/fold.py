"""How long, and in how much memory, metrics and their intervals are made of many rows: beside a bootstrap by numpy.

    python -m benchmarks.fold --rows 10000000

Batches are what a merge hands over: 32,768 rows as Arrow. Each kind is timed by itself. The other side holds all
scores and draws as many of them again, by numpy: 10 resamples are timed and counted as 1000.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from hpcjobs.config import TaskConfig
from hpcjobs.metrics import Aggregator, find_metrics

BATCH = 32_768
KINDS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "mean of 0s and 1s": ("exact_match", "generate", ()),
    "mean of many values": ("f1", "generate", ()),
    "bleu (10 sums)": ("bleu", "generate", ()),
    "acc by option": ("acc", "choice", ()),
    "0s and 1s in 57 groups": ("exact_match", "generate", ("subject",)),
    "0s and 1s in 1000 groups": ("exact_match", "generate", ("many",)),
    "many values in 1000 groups": ("f1", "generate", ("many",)),
}


def batches(metric: str, rows: int) -> Iterator[pa.Table]:
    """`rows` rows with scores of one metric, as results.parquet has them."""
    draw = np.random.default_rng(1)
    for start in range(0, rows, BATCH):
        size = min(BATCH, rows - start)
        scores = draw.random(size) if metric in ("f1", "bleu") else (draw.random(size) < 0.7).astype(float)
        columns = {"scores": pa.StructArray.from_arrays([pa.array(scores)], [metric])}
        width = {"bleu": 10, "acc": 1}.get(metric)
        if width:
            sums = draw.integers(10 if metric == "bleu" else 0, 12 if metric == "bleu" else 4, size * width)
            lists = pa.ListArray.from_arrays(np.arange(size + 1) * width, pa.array(sums.astype(float)))
            columns["statistics"] = pa.StructArray.from_arrays([lists], [metric])
        subject = pa.array([f"subject {n}" for n in range(57)]).take(pa.array(draw.integers(0, 57, size)))
        many = pa.array(draw.integers(0, 1000, size))
        columns["input"] = pa.StructArray.from_arrays([subject, many], ["subject", "many"])
        yield pa.table(columns)


def fold(metric: str, task: str, group_by: tuple[str, ...], rows: int) -> tuple[float, float]:
    """Seconds in `add` and in the summaries."""
    config = TaskConfig.model_validate({"type": task, "metrics": (metric,), "group_by": group_by})
    aggregator = Aggregator(find_metrics([metric]), config)
    adding = 0.0
    for table in batches(metric, rows):
        start = time.perf_counter()
        aggregator.add(table)
        adding += time.perf_counter() - start
    start = time.perf_counter()
    aggregator.summary()
    aggregator.groups()
    return adding, time.perf_counter() - start


def memory() -> float:
    """The most memory this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--rows", type=int, default=10_000_000)
    rows = parse.parse_args().rows
    fold("f1", "generate", (), BATCH)  # what is imported or compiled once
    print(f"{'':<28} {'fold s':>8} {'end s':>8} {'Mrows/s':>8} {'peak MB':>8}")
    found = {}
    for name, (metric, task, group_by) in KINDS.items():
        adding, ending = fold(metric, task, group_by, rows)
        found[name] = adding + ending
        print(f"{name:<28} {adding:8.2f} {ending:8.2f} {rows / found[name] / 1e6:8.1f} {memory():8.0f}")
    naive = 100 * resampling(rows)
    print(f"{'1000 resamples by numpy':<28} {naive:8.0f} {'':>8} {rows / naive / 1e6:8.3f} {memory():8.0f}")
    print(*(f"ratio {name}: {naive / found[name]:.0f}" for name in list(found)[:2]), sep="\n")


def resampling(rows: int) -> float:
    """Seconds for ten resamples of a whole column, and their means."""
    draw = np.random.default_rng(1)
    scores = draw.random(rows)
    start = time.perf_counter()
    np.percentile([scores[draw.integers(0, rows, rows)].mean() for _ in range(10)], [2.5, 97.5])
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
