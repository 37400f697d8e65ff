"""How near dynamic sharding comes to the best makespan, static beside it, and what the ledger costs.

    python benchmarks/makespan.py real [--ranks 4] [--seconds 60]
    python benchmarks/makespan.py simulate [--ranks 64 512 4096] [--rows 10000000] [--sample-seconds 0.5]

The work is lognormal: no plan can know it. `real`: rank processes with the real ledger on real files; a sample is a
sleep. `simulate`: the real ledger of each rank on a real folder in memory, in virtual time. The optimum is the lower
bound max(all work / ranks, longest sample).

In `simulate` one process creates every file, so it knows what a look into the folder would show: each LISTING-th look
reads the folder and is compared with the books, the others are answered from the books, and charged what those took.
"""

from __future__ import annotations

import argparse
import heapq
import multiprocessing
import os
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpcjobs.distributed.rank import Rank
from hpcjobs.run_folder.ledger.chunks import ChunkList, default_chunk_size, plan_chunks, write_chunks
from hpcjobs.run_folder.ledger.claims import Claims, Lease, Listing
from hpcjobs.run_folder.ledger.ledger import Ledger, Rules
from hpcjobs.run_folder.ledger.takeover import LeaseWatch
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity

LISTING = 100
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
Floats = npt.NDArray[np.float64]


def lognormal(rows: int, sigma: float, mean: float) -> Floats:
    """Seconds of each sample."""
    found = np.random.default_rng(0).lognormal(0.0, sigma, rows)
    return np.asarray(found * mean / found.mean())


def new_round(folder: Path, rows: int, chunk_size: int) -> RunPaths:
    """A run folder with nothing but the chunks of round 0."""
    paths = RunPaths(folder)
    for each in (paths.round(0), paths.ranks, paths.heartbeats):
        each.mkdir(parents=True)
    write_chunks(paths.chunks(0), plan_chunks(np.zeros(rows, np.int64), chunk_size))
    return paths


def book(
    paths: RunPaths, claims: Claims, chunks: ChunkList, rank: int, world: int, static: bool, watch: LeaseWatch
) -> Ledger:
    owner = Lease(
        chunk=0,
        generation=0,
        attempt="a",
        rank=rank,
        host="here",
        journal=f"a-{rank}.jsonl",
        identity=Identity("elsewhere", 1, "1"),
    )
    return Ledger(claims, chunks, owner, watch, (rank, world), Rules(static=static))


class Books(Claims):
    """Claims that know what is in the folder; `ops` counts what each method asks of the file system."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.known, self.ops = Listing({}, set(), set()), Counter[str]()
        self.looks, self.listed, self.seconds_listing, self.charged = 0, 0, 0.0, 0.0

    def list(self) -> Listing:
        self.ops["listings"] += 1
        entries = len(self.known.leased) + len(self.known.done)
        self.ops["entries listed"] += entries
        if self.looks % LISTING == 0:
            started = time.perf_counter()
            found = super().list()
            self.seconds_listing += time.perf_counter() - started
            self.listed += entries
            assert (found.leased, found.done) == (self.known.leased, self.known.done)
        else:
            self.charged += self.seconds_listing / max(1, self.listed) * entries
        self.looks += 1
        return self.known

    def is_leased(self, chunk: int) -> bool:
        self.ops["questions"] += 1
        return super().is_leased(chunk)

    def lease(self, lease: Lease) -> bool:
        won = super().lease(lease)
        self.ops["creations" if won else "creations in vain"] += 1
        if won:
            self.known.leased[lease.chunk] = lease.generation
        return won

    def done(self, lease: Lease) -> bool:
        won = super().done(lease)
        self.ops["creations" if won else "creations in vain"] += 1
        self.known.done.add(lease.chunk)
        return won

    def read_lease(self, chunk: int, generation: int) -> Lease:
        self.ops["leases read"] += 1
        return super().read_lease(chunk, generation)


@dataclass
class Watch(LeaseWatch):
    """A watch in virtual time: nobody is lost, and asking costs the read of a heartbeat."""

    claims: Books
    now: float = 0.0
    seen: set[int] = field(default_factory=set)

    def clock(self) -> float:
        return self.now

    def lost(self, lease: Lease) -> bool:
        self.claims.ops["heartbeats read"] += 1
        return False


def simulate(ranks: int, seconds: Floats, static: bool, folder: Path) -> None:
    """Every rank's real ledger in virtual time: a heap of (when, rank); prints makespan and costs."""
    paths = new_round(folder, len(seconds), default_chunk_size(len(seconds)))
    chunks, claims = ChunkList.read(paths.chunks(0)), Books(paths.round(0))
    work = np.add.reduceat(seconds[chunks.indexes], chunks.starts[:-1])
    watch, cost, end = Watch(claims), 0.0, 0.0
    started = time.perf_counter()
    books = [book(paths, claims, chunks, rank, ranks, static, watch) for rank in range(ranks)]
    cost += time.perf_counter() - started
    clocks: list[tuple[float, int, Lease | None]] = [(0.0, rank, None) for rank in range(ranks)]
    while clocks:
        watch.now, rank, held = heapq.heappop(clocks)
        started = time.perf_counter()
        if held:
            books[rank].done(held)
        lease = books[rank].claim()
        over = not lease and (static or books[rank].over())
        cost += time.perf_counter() - started
        if lease:
            heapq.heappush(clocks, (watch.now + work[lease.chunk], rank, lease))
        elif not over:
            heapq.heappush(clocks, (watch.now + 0.5, rank, None))
        end = max(end, watch.now if held else 0.0)
    best = max(seconds.sum() / ranks, seconds.max())
    each, cost = len(chunks), cost + claims.charged
    print(
        f"{ranks:5d} ranks {'static ' if static else 'dynamic'} {each} chunks  makespan {end:9.1f} s  "
        f"optimum {best:9.1f} s  ratio {end / best:.3f}  ledger {cost / ranks:.3f} s a rank = "
        f"{100 * cost / ranks / end:.3f} %"
    )
    print(
        "      a chunk:",
        "  ".join(f"{name} {count / each:.3f}" for name, count in sorted(claims.ops.items())),
        flush=True,
    )


def work_as(rank: int, ranks: int, root: str, seconds: Floats, static: bool, ready: list[object]) -> None:
    """One real rank: claim, sleep, settle, until all is settled."""
    paths, world = (
        RunPaths(Path(root)),
        Rank(
            rank=rank,
            world_size=ranks,
            local_rank=rank,
            local_world_size=ranks,
            node=0,
            attempt="a",
            launcher="torchrun",
            host="here",
        ),
    )
    chunks, watch = ChunkList.read(paths.chunks(0)), LeaseWatch(paths.heartbeats, world.succeeds, 1e9)
    mine = book(paths, Claims(paths.round(0)), chunks, rank, ranks, static, watch)
    ready[0].wait()  # type: ignore[attr-defined]
    started, end, worked = time.perf_counter(), 0.0, 0.0
    while True:
        lease = mine.claim()
        if lease is None:
            if static or mine.over():
                break
            time.sleep(0.02)
            continue
        began = time.perf_counter()
        for index in chunks[lease.chunk]:
            time.sleep(seconds[index])
        end = time.perf_counter() - started
        worked += time.perf_counter() - began  # a sleep takes longer than it should on a busy machine
        mine.done(lease)
    (paths.ranks / f"end-{rank}").write_text(f"{end} {worked}")


def real(ranks: int, seconds: Floats, chunk_size: int, static: bool, folder: Path) -> None:
    """Real processes on real files; prints the makespan."""
    paths, context = new_round(folder, len(seconds), chunk_size), multiprocessing.get_context("fork")
    ready = context.Barrier(ranks)
    processes = [
        context.Process(target=work_as, args=(rank, ranks, str(folder), seconds, static, [ready]))
        for rank in range(ranks)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    told = [(paths.ranks / f"end-{rank}").read_text().split() for rank in range(ranks)]
    end, best = max(float(last) for last, _ in told), max(sum(float(work) for _, work in told) / ranks, seconds.max())
    name = "static " if static else "dynamic"
    print(f"{ranks} real ranks {name} makespan {end:.2f} s  optimum {best:.2f} s  ratio {end / best:.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["real", "simulate"])
    parser.add_argument("--ranks", type=int, nargs="+")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--sample-seconds", type=float, default=0.5)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--sigma", type=float, default=1.0)
    parser.add_argument("--sharding", choices=["dynamic", "static"], nargs="+", default=["dynamic", "static"])
    parser.add_argument("--folder", type=Path, default=MEMORY)
    options = parser.parse_args()
    for ranks in options.ranks or ([4] if options.what == "real" else [64, 512, 4096]):
        for static in (sharding == "static" for sharding in options.sharding):
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                if options.what == "real":
                    rows = 2000
                    seconds = lognormal(rows, options.sigma, options.seconds * ranks / rows)
                    real(ranks, seconds, default_chunk_size(rows), static, Path(folder))
                else:
                    seconds = lognormal(options.rows, options.sigma, options.sample_seconds)
                    simulate(ranks, seconds, static, Path(folder))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
