"""resume --errors: what has no completion runs again, and nothing else; whatever happens on the way."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from hpcjobs.launch.slurm import clean_environment
from hpcjobs.merge.eval import merge
from hpcjobs.requests import SampleError
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.journal.record import Record
from hpcjobs.run_folder.ledger.acceptance import read_rounds
from hpcjobs.run_folder.ledger.chunks import ChunkList, runs_again
from hpcjobs.run_folder.ledger.rounds import close_round, open_round
from hpcjobs.run_folder.paths import RunPaths
from tests.fake_slurm import Shell
from tests.runs import (
    Ranks,
    answer,
    cancelled_at_end,
    hpcjobs,
    missing_lines,
    plan_run,
    records_in,
    rows_of,
    run_ranks,
    settle_by_hand,
    write_journal,
)
from tests.trainings import plan_training

ROWS = 60
FAILED = [number for number in range(ROWS) if number % 19 == 18]
DELAY = {"engine": "dummy", "dummy_delay": 0.2}


@pytest.fixture
def paths(ram: Path) -> RunPaths:
    """A merged run with a template that fails on three rows, which is mended now; so is that of no other."""
    found = plan_run(ram / "run", ROWS, run={"heartbeat": 0.2, "chunk_size": 4})
    run_ranks(found, 2)
    assert list(merge(found).failed) == FAILED == [18, 37, 56]
    mend(found)
    return found


def mend(paths: RunPaths) -> None:
    paths.config.write_text(paths.config.read_text().replace("60 // divisor", "60 // (divisor or 1)"))


def again(paths: RunPaths, deterministic: bool = False) -> list[int]:
    """What `resume --errors` does before it launches; the samples of the new round."""
    number = paths.rounds()[-1]
    close_round(paths, number, deterministic)
    merged = merge(paths)
    todo = [*merged.missing, *merged.failed]
    open_round(paths, number + 1, todo, 4, deterministic, again=bool(merged.failed))
    return sorted(ChunkList.read(paths.chunks(number + 1)).indexes.tolist())


def all_right(paths: RunPaths) -> None:
    """Each sample counts once in the ledger, and its answer is the mended template's."""
    merged = merge(paths)
    assert (merged.complete, list(merged.failed)) == (True, [])
    rows = pq.read_table(paths.results).to_pylist()
    assert [row["completion"] for row in rows] == [answer(f"{row['question']} 60") for row in rows_of(ROWS)]
    assert all(row["error"] is None for row in rows)
    assert counted(paths) == Counter(range(ROWS))


def counted(paths: RunPaths) -> Counter[int]:
    """How many records of each sample the ledger accepts, over all rounds and journals."""
    rounds = read_rounds(paths, ROWS)
    records = [(path.name, record) for path in paths.journals() for record in records_in(path)]
    return Counter(record.index for name, record in records for one in rounds if one.accepts(name, record))


def completed(paths: RunPaths) -> dict[int, list[Record]]:
    found: dict[int, list[Record]] = {}
    for path in paths.journals():
        for record in records_in(path):
            found.setdefault(record.index, []).append(record)
    return found


def test_only_the_failed_ones_run_again_and_their_records_replace_the_old_ones(paths: RunPaths) -> None:
    before = completed(paths)
    with cancelled_at_end(paths):
        resumed = hpcjobs("resume", paths.root, "--errors", "--wait", "--ntasks-per-node", "2")
    assert resumed.returncode == 0, resumed.stderr
    assert f"resume  3 of {ROWS} samples, 3 of them with an error, on" in resumed.stderr
    all_right(paths)
    after = completed(paths)
    assert {index: len(records) for index, records in after.items() if len(records) > 1} == dict.fromkeys(FAILED, 2)
    assert all(after[index] == records for index, records in before.items() if index not in FAILED)
    assert read_json(paths.metrics)["counts"]["errors"] == 0
    assert hpcjobs("resume", paths.root, "--errors").stderr.startswith("no sample of run lacks a completion")


def test_what_fails_again_is_an_error_again_and_can_be_run_once_more(ram: Path) -> None:
    paths = plan_run(ram / "run", ROWS, run={"heartbeat": 0.2, "chunk_size": 4})
    run_ranks(paths, 1)
    for attempt in ("b", "c"):
        assert again(paths) == FAILED
        run_ranks(paths, 2, attempt)
        assert list(merge(paths).failed) == FAILED
        assert counted(paths) == Counter(range(ROWS))
    mend(paths)
    assert again(paths) == FAILED
    run_ranks(paths, 1, "d")
    all_right(paths)


def test_from_the_opening_of_the_round_on_they_are_missing_and_any_resume_goes_on(paths: RunPaths) -> None:
    """Killed between the opening and the launch: nothing has run, and the old errors count no more."""
    again(paths)
    assert runs_again(paths.chunks(1))
    assert not runs_again(paths.chunks(0))
    assert list(merge(paths).missing) == FAILED
    assert set(missing_lines(paths).values()) == {f"chunk {chunk} was never started" for chunk in range(3)}
    with cancelled_at_end(paths):
        resumed = hpcjobs("resume", paths.root, "--wait")
    assert resumed.returncode == 0, resumed.stderr
    assert f"resume  3 of {ROWS} samples on" in resumed.stderr
    all_right(paths)


@pytest.mark.parametrize("errors", [True, False])
def test_a_rank_that_is_killed_in_the_middle_costs_nothing(ram: Path, errors: bool) -> None:
    """SIGKILL when one of the three is done: it counts, and the next resume runs the other two."""
    paths = plan_run(ram / "run", ROWS, model=DELAY, run={"heartbeat": 0.2, "chunk_size": 4})
    write_journal(paths, [as_run(record) for record in settle_by_hand(paths)])
    mend(paths)
    assert again(paths) == FAILED
    with Ranks(paths, 1, "b") as ranks:
        ranks.start(0)
        ranks.wait_for_record(0)
        ranks.signal(0, signal.SIGKILL)
        assert ranks.finish(0) == [-signal.SIGKILL]
    done = {record.index for record in records_in(paths.journal("b", 0))}
    assert 0 < len(done) < 3
    number = paths.rounds()[-1]
    close_round(paths, number, False)
    assert set(merge(paths).missing) == set(FAILED) - done
    assert counted(paths) == Counter(set(range(ROWS)) - (set(FAILED) - done))
    if errors:
        assert set(again(paths)) == set(FAILED) - done
    else:
        open_round(paths, number + 1, merge(paths).missing, 4, False)
    run_ranks(paths, 2, "c")
    all_right(paths)
    later = [record.index for path in paths.journals() if path.name[0] != "a" for record in records_in(path)]
    assert Counter(later) == Counter(FAILED), "exactly once"


def as_run(record: Record) -> Record:
    """A record as the dummy engine and the template before it was mended make it."""
    failed: dict[str, Any] = {
        "completion": "", "finish_reason": "error", "error": SampleError("ZeroDivisionError", "no"),
        "scores": {"exact_match": 0.0, "contains": 0.0},
    }  # fmt: skip
    right = {"completion": answer(f"{rows_of(ROWS)[record.index]['question']} 60")}
    changes = failed if record.index in FAILED else right
    return Record(**{name: getattr(record, name) for name in record.__slots__} | changes)


def test_a_late_writer_of_the_old_round_changes_nothing(paths: RunPaths) -> None:
    journal = paths.journals()[0]
    lines = [record for record in records_in(journal) if record.index in FAILED]
    again(paths)
    with journal.open("ab") as file:
        file.write(b"".join(record.line() for record in lines))
    assert list(merge(paths).missing) == FAILED
    run_ranks(paths, 1, "b")
    all_right(paths)


def test_deterministic_runs_the_planned_chunks_of_the_failed_ones_as_a_whole(ram: Path) -> None:
    """A batch with one sample more may round otherwise: all of its chunk is that of a run that never failed."""
    paths = plan_run(ram / "run", ROWS, run={"heartbeat": 0.2, "chunk_size": 4, "deterministic": True})
    run_ranks(paths, 2)
    planned = ChunkList.read(paths.chunks(0))
    chunks = [planned[chunk] for chunk in range(len(planned)) if set(planned[chunk]) & set(FAILED)]
    mend(paths)
    assert again(paths, True) == sorted(index for chunk in chunks for index in chunk)
    run_ranks(paths, 2, "b")
    all_right(paths)


def test_two_at_once_lose_nothing_and_double_nothing(paths: RunPaths) -> None:
    command = [sys.executable, "-m", "hpcjobs", "resume", str(paths.root), "--errors", "--wait"]
    env = clean_environment()
    with cancelled_at_end(paths):
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        both = [subprocess.Popen(command, env=env, **pipes) for _ in range(2)]
        said = [process.communicate(timeout=120) for process in both]
        codes = [process.returncode for process in both]
        assert 0 in codes, said
        for code, (_, err) in zip(codes, said, strict=True):
            refused = ("was opened by another resume", "is still going", "lacks a completion")
            assert code == 0 or any(words in err for words in refused), err
        hpcjobs("resume", paths.root, "--wait")
    all_right(paths)


def test_the_flag_is_for_answers(
    ram: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = plan_training(ram / "train")
    shell = Shell(ram, monkeypatch, capsys)
    refused = shell.run("resume", str(trained.root), "--errors")
    assert refused.code == 2
    assert "has no samples to run again" in refused.err
