"""Real runs for tests: planned in process, their ranks real processes, waited for with a deadline.

Ranks are forked from a server that has imported hpcjobs once, so that a run of four takes half a second.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import pyarrow.parquet as pq

from hpcjobs.config import Config
from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.errors import HpcJobsError
from hpcjobs.launch.slurm import clean_environment
from hpcjobs.merge.eval import merge
from hpcjobs.plan.eval import make_plan
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.heartbeat import Vitals, read_heartbeats
from hpcjobs.run_folder.inputs import user_row
from hpcjobs.run_folder.journal.journal import read_journal
from hpcjobs.run_folder.journal.record import Record
from hpcjobs.run_folder.json_columns import python_rows
from hpcjobs.run_folder.ledger.chunks import ChunkList, write_chunks
from hpcjobs.run_folder.ledger.claims import Claims, Lease
from hpcjobs.run_folder.ledger.rounds import close_round, open_round
from hpcjobs.run_folder.merged import Merged
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity, machine_id, process_start
from hpcjobs.run_folder.submission import Launch, record_launch
from tests.reference.values import same

DEADLINE = 60.0
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
T = TypeVar("T")
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "hpcjobs.worker.run",
        "hpcjobs.worker.chunk_runner",
        "hpcjobs.engines.dummy",
        "hpcjobs.merge.eval",
        "pandas",
        "pyarrow.dataset",
    ]
)


def wait_for(look: Callable[[], T | None], what: str, seconds: float = DEADLINE) -> T:
    """What `look` answers as soon as it is neither None nor False; an AssertionError after the deadline."""
    end = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        found = look()
        if found is not None and found is not False:
            return found
        assert time.monotonic() < end, f"waited {seconds} s in vain for {what}"
        time.sleep(max(0.01, 2 * (time.monotonic() - began)))  # what is waited for needs the cores more than the looks


def answer(prompt: str) -> str:
    """What the dummy engine says to a prompt."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


MIXED: list[Any] = [12, 3.5, "x", None, True, {}, [1, 2.5, "y"], {"a": {"b": []}}, {"a": 1}, 2**80]


def rows_of(count: int) -> list[dict[str, Any]]:
    """Rows of many lengths and of mixed JSON values; each 19th fails in its template, each third has a right answer."""
    rows = []
    for number in range(count):
        question = f"né {number} " + "x" * (number * 7 % 23)
        divisor = 0 if number % 19 == 18 else 1
        gold = answer(f"{question} 60") if number % 3 == 0 else f"{number % 10}"
        row = {"id": f"row-{number}", "question": question, "divisor": divisor, "gold": gold}
        rows.append(row | {"mixed": MIXED[number % len(MIXED)]})
    return rows


def config_of(data: Path, changes: Mapping[str, Mapping[str, Any]]) -> Config:
    """A config of the dummy engine; `changes` are added section by section."""
    values: dict[str, dict[str, Any]] = {
        "model": {"engine": "dummy"},
        "data": {"name": str(data)},
        "task": {
            "prompt": "{{ question }} {{ 60 // divisor }}", "target": "{{ gold }}",
            "metrics": ["exact_match", "contains"],
        },
        "run": {"heartbeat": 0.2},
        "cluster": {"executor": "local"},
    }  # fmt: skip
    for section, added in changes.items():
        values[section] = values[section] | dict(added)
    return validate(Layer(values))


def plan_run(folder: Path, rows: int, job: str = "eval", **changes: Mapping[str, Any]) -> RunPaths:
    """A planned run in `folder`; nothing of it has been started."""
    data = folder.with_suffix(".jsonl")
    data.parent.mkdir(parents=True, exist_ok=True)
    data.write_text("".join(json.dumps(row) + "\n" for row in rows_of(max(rows, 1))))
    changes = {"data": {"max_samples": rows}} | changes
    draft = make_plan(job, config_of(data, changes), folder)
    draft.write()
    return draft.paths


def rank_main(run: str, env: Mapping[str, str]) -> None:
    """What a rank process does, without its guard: `run_rank(run)` in the environment of a launcher."""
    from hpcjobs.worker.run import run_rank

    clean = clean_environment() | dict(env)
    os.environ.clear()
    os.environ.update(clean)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # its own log says the same
    try:
        run_rank(run)
    except HpcJobsError as error:
        sys.exit(error.exit_code)


def rank_elsewhere(run: str, env: Mapping[str, str]) -> None:
    """`rank_main` on a machine of its own, as far as anybody can tell: whether it lives cannot be seen from others."""
    _move_elsewhere()
    rank_main(run, env)


def guarded_rank(run: str, env: Mapping[str, str]) -> None:
    """The same with its guard."""
    from hpcjobs.worker.__main__ import guard_rank

    _move_elsewhere()
    clean = clean_environment() | dict(env)
    os.environ.clear()
    os.environ.update(clean)
    guard_rank(run)


def _move_elsewhere() -> None:
    from hpcjobs.run_folder import process as identity

    place = f"machine of {os.getpid()}"
    identity.machine_id = lambda: place


def start_process(work: Callable[..., None], *args: Any) -> BaseProcess:
    """A new process that runs `work(*args)`."""
    process = _context.Process(target=work, args=args, daemon=True)
    process.start()
    return process


def finish(process: BaseProcess) -> int:
    """The exit code of a process that must end by itself; minus the signal where one ended it."""
    process.join(DEADLINE)
    if process.exitcode is None:
        process.kill()
    assert process.exitcode is not None, f"{process} did not end in {DEADLINE} s"
    return process.exitcode


def rank_env(rank: int, world: int, attempt: str) -> dict[str, str]:
    """The environment that torchrun would give to a rank of this machine."""
    values = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": world}
    return {name: str(value) for name, value in values.items()} | {"HPCJOBS_ATTEMPT": attempt}


class Ranks:
    """The rank processes of one attempt; whatever still lives at the end of the block is killed."""

    def __init__(
        self, paths: RunPaths, world: int, attempt: str = "a", main: Callable[..., None] = rank_main, **env: str
    ) -> None:
        self.paths, self.world, self.attempt, self._main, self._env = paths, world, attempt, main, env
        self._processes: dict[int, BaseProcess] = {}

    def start(self, *ranks: int) -> None:
        for rank in ranks:
            env = rank_env(rank, self.world, self.attempt) | self._env
            self._processes[rank] = start_process(self._main, str(self.paths.root), env)

    def signal(self, rank: int, number: signal.Signals) -> None:
        pid = self._processes[rank].pid
        assert pid is not None
        os.kill(pid, number)

    def finish(self, *ranks: int) -> list[int]:
        """Exit codes of ranks that must end by themselves."""
        return [finish(self._processes[rank]) for rank in ranks]

    def journal(self, rank: int) -> Path:
        return self.paths.journal(self.attempt, rank)

    def wait_for_record(self, rank: int) -> None:
        wait_for(lambda: bool(records_in(self.journal(rank))), f"a record of rank {rank}")

    def stop_inside_chunk(self, rank: int) -> int:
        """SIGSTOP a rank while a chunk is half done in its journal; the chunk."""

        def stopped() -> int | None:
            self.signal(rank, signal.SIGSTOP)
            pid = self._processes[rank].pid
            wait_for(lambda: process_state(pid) == "T", f"rank {rank} to stop")
            chunk = half_done(self.paths, self.journal(rank))
            if chunk is None:
                self.signal(rank, signal.SIGCONT)
            return chunk

        return wait_for(stopped, f"rank {rank} to be inside a chunk")

    def __enter__(self) -> Ranks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            process.kill()
            process.join()


def process_state(pid: int | None) -> str:
    """The state letter of a process (proc(5)), '' where there is none."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def records_in(journal: Path) -> list[Record]:
    """The whole records of a journal; none where it is not there yet."""
    return list(read_journal(journal)) if journal.exists() else []


def half_done(paths: RunPaths, journal: Path) -> int | None:
    """The chunk of the journal's last record, if it still lacks samples."""
    records = records_in(journal)
    if not records:
        return None
    chunk, number = records[-1].chunk, paths.rounds()[-1]
    whole = sum(record.chunk == chunk for record in records)
    return chunk if whole < len(ChunkList.read(paths.chunks(number))[chunk]) else None


def run_ranks(paths: RunPaths, world: int, attempt: str = "a") -> None:
    """Run all ranks of an attempt to their end; each must end well."""
    with Ranks(paths, world, attempt) as ranks:
        ranks.start(*range(world))
        codes = ranks.finish(*range(world))
    logs = "\n".join(path.read_text()[-4000:] for path in sorted(paths.logs.glob("*.log")))
    assert codes == [0] * world, f"ranks ended with {codes}\n{logs}"


def next_round(paths: RunPaths, deterministic: bool = False) -> list[int]:
    """What `resume` does before it launches: close the round, merge, open the next; what was missing."""
    number = paths.rounds()[-1]
    close_round(paths, number, deterministic)
    missing = list(merge(paths).missing)
    open_round(paths, number + 1, missing, read_json(paths.plan)["chunk_size"], deterministic)
    return missing


def said(paths: RunPaths) -> dict[str, Any]:
    """What must not depend on ranks, order or faults: the metrics and the counts."""
    values = read_json(paths.metrics)
    return {name: values[name] for name in ("complete", "metrics", "counts")}


def outcome(paths: RunPaths) -> tuple[Merged, bytes, dict[str, Any]]:
    """Merge; then what came of it, the bytes of results.parquet, and the metrics and counts."""
    merged = merge(paths)
    return merged, paths.results.read_bytes(), said(paths)


@functools.cache
def undisturbed(rows: int) -> tuple[bytes, dict[str, Any]]:
    """Bytes and metrics of these rows on one rank that nothing happened to; their input is the file's by `json.loads`.
    """
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        paths = plan_run(Path(folder, "run"), rows)
        run_ranks(paths, 1)
        merged, content, values = outcome(paths)
        asked = paths.root.with_suffix(".jsonl").read_text().splitlines()[:rows]
        assert same(inputs_of(paths), [json.loads(line) for line in asked])
    assert merged.complete
    return content, values


def inputs_of(paths: RunPaths) -> list[dict[str, Any]]:
    """The `input` of results.parquet under the names that the file has."""
    rows = python_rows(pq.read_table(paths.results))
    return [user_row({"id": row["id"], **row["input"]}) for row in rows]


def missing_lines(paths: RunPaths) -> dict[int, str]:
    """Index -> reason, as missing.jsonl has it."""
    lines = [json.loads(line) for line in paths.missing.read_bytes().splitlines()]
    assert [line["id"] for line in lines] == [f"row-{line['index']}" for line in lines]
    return {line["index"]: line["reason"] for line in lines}


def lease_of(chunk: int, rank: int = 0, attempt: str = "a", **more: Any) -> Lease:
    """A lease of this process, generation 0 unless `more` says otherwise."""
    values: dict[str, Any] = {"generation": 0, "journal": f"{attempt}-{rank}.jsonl", "identity": Identity.own()}
    return Lease(chunk=chunk, rank=rank, attempt=attempt, host="here", **values | more)


def record_of(index: int, chunk: int, rank: int = 0, attempt: str = "a", **more: Any) -> Record:
    """A plain record of a sample, with a score."""
    values: dict[str, Any] = {
        "index": index, "id": f"row-{index}", "chunk": chunk, "generation": 0, "completion": f"answer {index}",
        "finish_reason": "stop", "prompt_tokens": 2, "completion_tokens": 1, "rank": rank, "attempt": attempt,
        "seconds": 0.5, "started_at": 1.0, "scores": {"exact_match": 1.0, "contains": 1.0},
    }  # fmt: skip
    return Record(**values | more)


def round_by_hand(folder: Path, chunks: Sequence[Sequence[int]]) -> RunPaths:
    """A run folder with round 0, its chunks, and nothing else."""
    paths = RunPaths(folder)
    for each in (paths.round(0), paths.ranks, paths.heartbeats):
        each.mkdir(parents=True)
    write_chunks(paths.chunks(0), chunks)
    return paths


def write_journal(paths: RunPaths, records: Sequence[Record], name: str = "a-0.jsonl") -> Path:
    """A journal made by hand."""
    path = paths.ranks / name
    path.write_bytes(b"".join(record.line() for record in records))
    return path


def settle_by_hand(paths: RunPaths, attempt: str = "a", rank: int = 0) -> list[Record]:
    """Claim and settle every chunk of round 0 as one rank; the records that its journal is to have."""
    chunks, claims, records = ChunkList.read(paths.chunks(0)), Claims(paths.round(0)), []
    for chunk in range(len(chunks)):
        lease = lease_of(chunk, rank, attempt)
        assert claims.lease(lease)
        assert claims.done(lease)
        records += [record_of(index, chunk, rank, attempt) for index in chunks[chunk]]
    return records


def hpcjobs(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """`python -m hpcjobs ...` as a user runs it."""
    command = [sys.executable, "-m", "hpcjobs", *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=DEADLINE, env=clean_environment(), check=False
    )


def submit(folder: Path, rows: int, ranks: int, **changes: Mapping[str, Any]) -> RunPaths:
    """A run that `hpcjobs submit --executor local` has started."""
    paths = plan_run(folder.with_name("template"), rows, "eval", **changes)
    flags = ("--name", folder.name, "--executor", "local", "--ntasks-per-node", str(ranks), "--yes")
    done = hpcjobs("submit", "eval", "--config", paths.config, "--run-dir", folder, *flags)
    assert done.returncode == 0, done.stderr
    return RunPaths(folder)


@contextlib.contextmanager
def supervised(paths: RunPaths) -> Iterator[subprocess.Popen[bytes]]:
    """The supervisor of a planned run, recorded as `submit` does it; its group is ended with the block."""
    command = [sys.executable, "-m", "hpcjobs.launch.supervisor", str(paths.root), "0"]
    env = clean_environment() | {"HPCJOBS_ATTEMPT": "leaked"}
    with subprocess.Popen(command, env=env, start_new_session=True, stderr=subprocess.DEVNULL) as process:
        identity = Identity(machine_id(), process.pid, process_start(process.pid) or "0")
        record_launch(
            paths, Launch(number=0, executor="local", jobs={}, shape="1 node", ranks=1, supervisor=identity.values())
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def vitals_of(paths: RunPaths, rank: int) -> Vitals:
    """What a rank of the newest attempt has told about itself, as soon as it has finished a sample."""

    def look() -> Vitals | None:
        return next((v for v in reversed(read_heartbeats(paths.heartbeats)) if v.rank == rank and v.samples), None)

    return wait_for(look, f"a sample of rank {rank}")


@contextlib.contextmanager
def cancelled_at_end(paths: RunPaths) -> Iterator[None]:
    """Whatever the local executor still runs at the end of the block is ended."""
    try:
        yield
    finally:
        from hpcjobs.commands.cancel import cancel

        cancel(paths)
