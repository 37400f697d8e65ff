from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pyarrow as pa

from hpcjobs.merge.eval import merge
from hpcjobs.merge.external_sort import Spill
from hpcjobs.merge.results import ResultsWriter, schema_of
from hpcjobs.run_folder.files import FileTransaction, make_folder, temporary_name
from hpcjobs.run_folder.journal.table import journal_schema, table_of
from hpcjobs.run_folder.leftovers import own_mark, remove_leftovers
from tests.runs import finish, outcome, plan_run, record_of, run_ranks, start_process, undisturbed

SCHEMA = journal_schema(pa.schema([]))


def die_half_way(folder: str) -> None:
    """A merge that SIGKILL ends when it has begun everything."""
    root = Path(folder)
    writer = ResultsWriter(root / "results.parquet", schema_of([], pa.schema([("index", pa.int64())])))
    with FileTransaction() as files, writer, Spill(root, 2, SCHEMA, 1) as spill:
        spill.add(table_of([record_of(0, 0)], SCHEMA))
        files.write(root / "metrics.json", "text")
        os.kill(os.getpid(), signal.SIGKILL)


def test_the_next_merge_removes_what_a_killed_one_left(ram: Path) -> None:
    paths = plan_run(ram / "run", 7)
    run_ranks(paths, 1)
    assert finish(start_process(die_half_way, str(paths.root))) == -signal.SIGKILL
    left = sorted(entry.name.split(".")[1] for entry in paths.root.glob(".*"))
    assert left == ["merge", "metrics", "results"]
    assert outcome(paths)[1:] == undisturbed(7)
    assert list(paths.root.glob(".*")) == []


def aged(path: Path, seconds: float) -> Path:
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


def test_what_may_be_in_use_stays_for_a_day(tmp_path: Path) -> None:
    """Our own, another machine's, and one without a mark; a folder is as old as the newest file in it."""
    ours, far, plain = temporary_name(tmp_path / "metrics.json"), f".m.{'0' * 12}-1-1.abcdef.tmp", ".old.tmp"
    sort = make_folder(tmp_path / f".merge.{'0' * 12}-1-1.abc.tmp")
    for path in (ours, tmp_path / far, tmp_path / plain, sort / "0", tmp_path / "results.parquet"):
        path.write_text("text")
    names = sorted(os.listdir(tmp_path))
    aged(sort, 2 * 86_400)
    assert remove_leftovers(tmp_path) == []
    assert sorted(os.listdir(tmp_path)) == names
    for path in (tmp_path / far, tmp_path / plain, sort / "0", tmp_path / "results.parquet"):
        aged(path, 86_500)
    aged(sort, 86_500)
    assert remove_leftovers(tmp_path) == sorted([far, plain, sort.name])
    assert sorted(os.listdir(tmp_path)) == sorted([ours.name, "results.parquet"])


def test_a_reused_process_number_is_another_process(tmp_path: Path) -> None:
    machine, pid, started = own_mark().split("-")
    assert (int(pid), started.isdigit()) == (os.getpid(), True)
    stale = tmp_path / f".metrics.json.{machine}-{pid}-{int(started) - 1}.abcdef.tmp"
    stale.write_text("text")
    assert remove_leftovers(tmp_path) == [stale.name]


def own_name(folder: str) -> None:
    assert f"-{os.getpid()}-" in own_mark()
    Path(folder, own_mark()).touch()


def test_a_forked_process_has_a_mark_of_its_own(tmp_path: Path) -> None:
    mark = own_mark()
    assert finish(start_process(own_name, str(tmp_path))) == 0
    assert os.listdir(tmp_path) != [mark]


def test_merge_beside_a_live_merge_leaves_its_files(ram: Path) -> None:
    paths = plan_run(ram / "run", 7)
    with Spill(paths.root, 2, SCHEMA, 1) as spill:
        spill.add(table_of([record_of(0, 0)], SCHEMA))
        merge(paths)
        assert [len(records) for _, records in spill.buckets(2)] == [1, 0]
