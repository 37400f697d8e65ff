"""What a rank does when its time is up: real ranks, on machines of which the others cannot see whether they live."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.launch.slurm import clean_environment
from hpcjobs.run_folder.heartbeat import Vitals, read_heartbeat
from hpcjobs.run_folder.ledger.chunks import ChunkList
from hpcjobs.run_folder.ledger.claims import Claims, Former, Lease
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.worker.__main__ import main
from tests.runs import (
    DEADLINE,
    Ranks,
    half_done,
    outcome,
    plan_run,
    rank_elsewhere,
    rank_main,
    records_in,
    run_ranks,
    undisturbed,
    wait_for,
)

ROWS, DELAY = 97, 0.15
RULES: dict[str, dict[str, Any]] = {
    "dynamic": {}, "static": {"sharding": "static"}, "deterministic": {"deterministic": True},
}  # fmt: skip


def plan(folder: Path, **rules: Any) -> RunPaths:
    """A run of slow samples, where a lease that is not given back is held for ten minutes."""
    slow = {"engine": "dummy", "dummy_delay": DELAY}
    patient = {"heartbeat": 0.2, "chunk_size": 4, "lease_timeout": 600}
    return plan_run(folder, ROWS, model=slow, run=patient | rules)


def hurry(paths: RunPaths) -> None:
    """Let later ranks of a run be quick."""
    paths.config.write_text(paths.config.read_text().replace(f"dummy_delay: {DELAY}", "dummy_delay: 0.0"))


def told(paths: RunPaths, rank: int = 0) -> Vitals:
    vitals = read_heartbeat(paths.heartbeat("a", rank))
    assert vitals
    return vitals


def given_back(paths: RunPaths) -> list[Lease]:
    """The leases of chunks that are held by nobody and not settled."""
    claims = Claims(paths.round(0))
    listing = claims.list()
    leases = [claims.read_lease(n, listing.leased[n]) for n in sorted(listing.leased.keys() - listing.settled)]
    assert all(lease.released and not lease.journal for lease in leases), "a chunk is still held"
    return leases


def indexes_of(path: Path, chunk: int) -> tuple[int, ...]:
    return tuple(record.index for record in records_in(path) if record.chunk == chunk)


@pytest.mark.parametrize("kind", RULES)
def test_a_rank_asked_to_end_finishes_its_sample_and_gives_the_rest_back(ram: Path, kind: str) -> None:
    paths = plan(ram / "run", **RULES[kind])
    with Ranks(paths, 1, main=rank_elsewhere) as ranks:
        ranks.start(0)
        chunk = wait_for(lambda: half_done(paths, ranks.journal(0)), "rank 0 to be inside a chunk")
        before = indexes_of(ranks.journal(0), chunk)
        ranks.signal(0, signal.SIGTERM)
        assert ranks.finish(0) == [0]
    whole = indexes_of(ranks.journal(0), chunk)
    assert whole[:-1] == before, "it did not finish the one sample that it had in hand"
    assert (told(paths).state, told(paths).open) == ("drained", 0)
    assert str(told(paths).ended).startswith("drained: ended by SIGTERM")
    settled = Claims(paths.round(0)).list().done
    if len(whole) < len(ChunkList.read(paths.chunks(0))[chunk]):
        [lease] = given_back(paths)
        former = () if kind == "deterministic" else (Former("a-0.jsonl", 0, whole),)
        assert (lease.chunk, lease.generation, lease.former, lease.suspects) == (chunk, 1, former, ())
        assert lease.released.startswith("drained: ended by SIGTERM")
    else:
        assert chunk in settled
    hurry(paths)
    begun = time.monotonic()
    run_ranks(paths, 1, "b")
    assert time.monotonic() - begun < DEADLINE
    made = len(records_in(paths.journal("a", 0))) + len(records_in(paths.journal("b", 0)))
    redone = len(whole) if kind == "deterministic" and chunk not in settled else 0
    assert made == ROWS + redone, "a sample was made twice, or none was redone that had to be"
    merged, content, values = outcome(paths)
    assert merged.complete
    assert (content, values) == undisturbed(ROWS)


@pytest.mark.parametrize("kind", ["dynamic", "deterministic"])
def test_a_rank_leaves_before_the_time_limit(ram: Path, kind: str) -> None:
    paths = plan(ram / "run", drain_margin=1.0, **RULES[kind])
    ends_at = int(time.time()) + 4
    with Ranks(paths, 1, main=rank_elsewhere, HPCJOBS_END_TIME=str(ends_at)) as ranks:
        ranks.start(0)
        assert ranks.finish(0) == [0]
    vitals = told(paths)
    assert (vitals.state, vitals.ended) == ("drained", "drained: the time limit")
    assert vitals.ended_at
    assert vitals.ended_at < ends_at
    first = records_in(ranks.journal(0))
    assert 0 < len(first) < ROWS
    for lease in given_back(paths):
        whole = indexes_of(ranks.journal(0), lease.chunk)
        assert lease.former == (() if kind == "deterministic" or not whole else (Former("a-0.jsonl", 0, whole),))
    hurry(paths)
    run_ranks(paths, 1, "b")
    again = len(records_in(paths.journal("b", 0))) - (ROWS - len(first))
    assert again == 0 if kind == "dynamic" else 0 <= again < 4
    assert outcome(paths)[1:] == undisturbed(ROWS)


def test_an_allocation_that_is_over_begins_nothing(ram: Path) -> None:
    paths = plan(ram / "run")
    with Ranks(paths, 1, HPCJOBS_END_TIME=str(int(time.time()))) as ranks:
        ranks.start(0)
        assert ranks.finish(0) == [0]
    assert records_in(ranks.journal(0)) == []
    assert Claims(paths.round(0)).list().leased == {}
    assert (told(paths).state, told(paths).ended) == ("drained", "drained: the time limit")


def test_a_warning_far_from_the_limit_drains_as_well(ram: Path) -> None:
    paths = plan(ram / "run")
    with Ranks(paths, 1, main=rank_elsewhere, HPCJOBS_END_TIME=str(int(time.time()) + 3600)) as ranks:
        ranks.start(0)
        ranks.wait_for_record(0)
        ranks.signal(0, signal.SIGUSR2)
        assert ranks.finish(0) == [0]
    assert 0 < len(records_in(ranks.journal(0))) < ROWS
    assert "SIGUSR2" in str(told(paths).ended)
    given_back(paths)


def test_a_rank_that_fails_gives_its_chunks_back(ram: Path) -> None:
    """The next one need not wait: what was whole counts, and the reason stands in the ledger."""
    paths = plan(ram / "run")
    with Ranks(paths, 1, main=fail_soon) as ranks:
        ranks.start(0)
        assert ranks.finish(0) == [1]
    assert (told(paths).state, told(paths).first_error) == ("failed", "MemoryError: the engine broke")
    [lease] = given_back(paths)
    assert lease.released == "its rank failed: the engine broke"
    assert lease.former == (Former("a-0.jsonl", 0, indexes_of(ranks.journal(0), lease.chunk)),)
    hurry(paths)
    run_ranks(paths, 1, "b")
    assert outcome(paths)[1:] == undisturbed(ROWS)


def fail_soon(run: str, env: dict[str, str]) -> None:
    """A rank whose engine breaks at its third sample."""
    from hpcjobs.engines.dummy import DummyEngine

    complete, done = DummyEngine._complete, []

    def breaks(self: DummyEngine, request: Any) -> Any:
        done.append(request)
        if len(done) == 3:
            raise MemoryError("the engine broke")
        return complete(self, request)

    DummyEngine._complete = breaks  # type: ignore[method-assign]
    try:
        rank_elsewhere(run, env)
    except MemoryError:
        sys.exit(1)


def test_an_idle_gpu_is_a_refusal_of_the_first_moment(ram: Path) -> None:
    """The audit's place is before any sample is begun, and its word is the rank's first error."""
    paths = plan(ram / "run")
    step = {
        "SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_STEP_ID": "0", "SLURM_JOB_ID": "7", "SLURM_LOCALID": "0",
        "SLURM_STEP_NODELIST": "n1", "SLURM_STEP_NUM_NODES": "1", "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_TASKS_PER_NODE": "1", "SLURM_GPUS_ON_NODE": "",
    }  # fmt: skip
    with Ranks(paths, 1, main=rank_main, **step) as ranks:
        ranks.start(0)
        assert ranks.finish(0) == [1]
    assert (told(paths).state, told(paths).fatal) == ("failed", True)
    assert "1 of 2 allocated nodes have no rank" in str(told(paths).first_error)
    assert paths.journals() == []


@pytest.mark.parametrize(("words", "code"), [([], 2), (["a", "b"], 2), (["--help"], 0), (["-h"], 0)])
def test_its_command_line(words: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == code
    assert "usage: srun python -m hpcjobs.worker RUN" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "error: no run" in capsys.readouterr().err


def test_a_process_outside_of_srun_is_refused(ram: Path) -> None:
    paths = plan(ram / "run")
    batch = {"ENVIRONMENT": "BATCH", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "7"}
    command = [sys.executable, "-m", "hpcjobs.worker", str(paths.root)]
    env = clean_environment() | batch
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 1
    assert "started outside of srun" in done.stderr
    assert "Traceback" not in done.stderr
    assert paths.journals() == []
