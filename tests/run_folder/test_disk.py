"""Full disks, with real ones: what is said, what stays as it was, and that it goes on when there is room."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from hpcjobs.distributed.rank import Rank
from hpcjobs.distributed.rendezvous import Rendezvous
from hpcjobs.errors import DiskFullError, JournalError
from hpcjobs.merge.eval import merge
from hpcjobs.merge.external_sort import Spill
from hpcjobs.merge.score import rescore
from hpcjobs.run_folder.disk import (
    Space,
    bytes_text,
    disk_errors,
    disk_message,
    merge_need,
    next_step,
    rest_of_run,
    shortage,
    whole_run,
)
from hpcjobs.run_folder.files import FileTransaction, _link, create_once, make_folder, read_json, write_whole
from hpcjobs.run_folder.heartbeat import Heartbeat, Vitals, read_heartbeat
from hpcjobs.run_folder.journal.journal import Journal
from hpcjobs.run_folder.journal.record import Record
from hpcjobs.run_folder.journal.table import journal_schema, table_of
from hpcjobs.run_folder.ledger.claims import Claims
from hpcjobs.run_folder.ledger.rounds import close_round, open_round
from hpcjobs.run_folder.logs import rank_log
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity
from hpcjobs.run_folder.submission import Launch, record_launch
from tests.disks import PAGE, Disk, small_disk
from tests.runs import (
    hpcjobs,
    lease_of,
    missing_lines,
    outcome,
    plan_run,
    record_of,
    records_in,
    run_ranks,
    said,
    settle_by_hand,
    undisturbed,
    write_journal,
)

ROWS = 97
LONE = Rank(rank=0, world_size=1, local_rank=0, local_world_size=1, node=0, attempt="a", launcher="none", host="here")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """4 MB: enough for a run of 97 rows."""
    with small_disk(tmp_path / "disk", "size=4m") as mounted:
        yield mounted


@pytest.fixture
def run(disk: Disk, tmp_path: Path) -> RunPaths:
    """A planned run on that disk."""
    return plan_run(disk.path / "run", ROWS)


def hidden(folder: Path) -> list[str]:
    """Temporary files anywhere below."""
    return [path.name for path in folder.rglob(".*")]


def test_sizes_are_told_in_decimal_units() -> None:
    numbers = [0, 999, 1000, 1_340_000, 999_960, 2.5e9, 3.2e12]
    assert [bytes_text(n) for n in numbers] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "1.3 MB",
        "1.0 MB",
        "2.5 GB",
        "3.2 TB",
    ]


def test_the_file_system_is_that_of_the_nearest_folder_that_exists(disk: Disk) -> None:
    disk.fill(leave=8 * PAGE)
    assert Space.of(disk.path / "not" / "there") == Space(disk.path, 8 * PAGE, True)
    assert Space.of(disk.path.parent).mount != disk.path


CAUSES = {
    errno.ENOSPC: "No space left on device: 0 bytes free on the file system at {at}; needed: about 1.3 MB; free space",
    errno.EDQUOT: "quota exceeded: your quota on the file system at {at} is used up; .* have the quota raised",
    errno.EROFS: "Read-only file system: the file system at {at} is read-only; .* have it made writable",
    errno.EFBIG: "File too large: a limit on one file's size, with 0 bytes free .* {at}; .* limit raised",
}


@pytest.mark.parametrize("code", CAUSES)
def test_each_cause_is_named_with_its_cure(disk: Disk, code: int) -> None:
    """A quota cannot be had here: the errors are made by hand."""
    disk.fill()
    words = disk_message(OSError(code, "text"), disk.path / "file", 1_300_000, "hpcjobs merge r")
    assert "\n" not in words
    pattern = f"{disk.path}/file cannot be written: .*{CAUSES[code].format(at=disk.path)}.*, then: hpcjobs merge r$"
    assert re.match(pattern, words), words
    with pytest.raises(DiskFullError, match="hpcjobs merge r") as told, disk_errors(disk.path, 1, 2, "hpcjobs merge r"):
        raise OSError(code, "text")
    assert (told.value.errno, told.value.fatal, told.value.exit_code) == (code, True, 1)


def test_other_errors_pass_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), disk_errors(tmp_path):
        raise PermissionError(errno.EACCES, "no")


def test_a_read_only_disk_and_one_without_inodes_are_named(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=1m,nr_inodes=3") as disk:
        write_whole(disk.path / "first", "text")
        (disk.path / "second").touch()
        with pytest.raises(DiskFullError, match=f"{disk.path}/third cannot be written: .* no inode free"):
            write_whole(disk.path / "third", "text")
        with pytest.raises(DiskFullError, match=f"{disk.path}/folder cannot be written"):
            make_folder(disk.path / "folder" / "inside")
        disk.remount("ro")
        with pytest.raises(DiskFullError, match=r"read-only; .*have it made writable, then: the same command again"):
            write_whole(disk.path / "first", "other")
        assert (disk.path / "first").read_text() == "text"


def test_whole_files_stay_and_nothing_is_left_beside_them(disk: Disk) -> None:
    path = disk.path / "file"
    write_whole(path, "old")
    disk.fill(leave=PAGE)
    for write in (write_whole, create_once):
        with pytest.raises(DiskFullError, match=f"{path} cannot be written.*needed: about 1.0 MB"):
            write(path, b"n" * 1_000_000)
    assert (path.read_text(), hidden(disk.path)) == ("old", [])


def test_files_are_replaced_together_or_not_at_all(disk: Disk) -> None:
    first, second = disk.path / "first", disk.path / "second"

    def write(text: str) -> None:
        with FileTransaction() as files:
            files.write(first, text)
            files.write(second, text * PAGE)
            assert first.read_text() != text if first.exists() else True

    write("a")
    disk.fill(leave=PAGE)
    with pytest.raises(DiskFullError, match="second"):
        write("bb")
    assert (first.read_text(), second.read_text(), hidden(disk.path)) == ("a", "a" * PAGE, [])
    disk.clear()
    write("bb")
    assert (first.read_text(), second.read_text()) == ("bb", "bb" * PAGE)


def test_a_claim_that_has_no_room_was_never_made(disk: Disk, run: RunPaths) -> None:
    claims = Claims(run.round(0))
    disk.fill()
    for claim in (claims.lease, claims.done, claims.close):
        with pytest.raises(DiskFullError) as told:
            claim(lease_of(0))
        pattern = (
            rf"{run.round(0)}/0\.\w+ cannot be written.* needed: about .* MB; .*, then: hpcjobs resume {run.root}$"
        )
        assert re.match(pattern, str(told.value))
    assert (claims.list().leased, claims.list().settled, hidden(run.root)) == ({}, set(), [])
    disk.clear()
    assert claims.lease(lease_of(0))


def test_without_hard_links_a_claim_without_room_is_nobodys(disk: Disk, run: RunPaths, tmp_path: Path) -> None:
    """Its name may have been seen, so it stays, and is empty as after a death. A link to another disk is refused."""
    (tmp_path / "mine").write_text("{" + " " * PAGE)
    disk.fill(leave=PAGE)  # a part of it is written
    with pytest.raises(OSError, match="No space left"):
        _link(tmp_path / "mine", run.round(0) / "0.0")
    claims = Claims(run.round(0))
    assert claims.list().leased == {0: 0}
    assert claims.read_lease(0, 0).attempt == "nobody"


def test_rounds_are_closed_and_opened_when_there_is_room(disk: Disk, run: RunPaths) -> None:
    disk.fill()
    with pytest.raises(DiskFullError, match=f"claims/0/.*hpcjobs resume {run.root}"):
        close_round(run, 0, False)
    disk.clear()
    close_round(run, 0, False)
    disk.fill()
    with pytest.raises(DiskFullError, match=r"claims/1/chunks.parquet cannot be written"):
        open_round(run, 1, range(ROWS), 8, False)
    assert (run.rounds(), hidden(run.root)) == ([0], [])
    disk.clear()
    open_round(run, 1, range(ROWS), 8, False)
    assert run.rounds() == [0, 1]


def test_submission_and_rendezvous_name_their_file(disk: Disk, run: RunPaths) -> None:
    record_launch(run, Launch(number=0, executor="local", jobs={}, shape="1 node", ranks=1))
    before = run.submission.read_bytes()
    rendezvous = Rendezvous.of(run.rendezvous, LONE, 1.0)
    disk.fill()
    with pytest.raises(DiskFullError, match=f"{run.launches}/1.json cannot be written"):
        record_launch(run, Launch(number=1, executor="local", jobs={}, shape="1 node", ranks=1))
    with pytest.raises(DiskFullError, match=r"rank-0.json cannot be written"):
        rendezvous.arrive({"gpus": []})
    assert (run.submission.read_bytes(), hidden(run.root)) == (before, [])


def append_all(journal: Journal, records: list[Record]) -> None:
    for record in records:
        journal.append(record)


def test_a_journal_ends_at_the_first_error_and_tells_what_the_rest_needs(disk: Disk, run: RunPaths) -> None:
    disk.fill(leave=4 * PAGE)
    path, records = run.journal("a", 0), [record_of(n, 0, completion="text " * 100) for n in range(ROWS)]
    size = len(records[10].line())
    with Journal(path) as journal:
        with pytest.raises(JournalError) as told:
            append_all(journal, records)
        words, end = str(told.value), path.stat().st_size
        pattern = f"{path} cannot be written: No space left on device: 0 bytes free on the file system at {disk.path}; "
        assert re.match(pattern + rf"needed: about .* MB; free space there, then: hpcjobs resume {run.root}$", words)
        disk.clear()
        with pytest.raises(JournalError, match=re.escape(words)):
            journal.append(records[0])
        with pytest.raises(JournalError, match=re.escape(words)):
            journal.sync()
    assert told.value.fatal
    assert path.stat().st_size == end == 4 * PAGE, "nothing follows the torn line"
    assert records_in(path) == records[: end // size]
    left = ROWS - end / size
    needed = 2 * left * size + 2 * read_json(run.plan)["chunks"] * 4096 * left / ROWS + merge_need(run)
    assert rest_of_run(run) == pytest.approx(needed, rel=0.02)


def test_the_need_is_that_of_all_that_is_still_to_be_written(run: RunPaths) -> None:
    inputs, chunks = run.data.stat().st_size, read_json(run.plan)["chunks"]
    assert rest_of_run(run) == pytest.approx(whole_run(ROWS, chunks, inputs), rel=0.01)
    write_journal(run, settle_by_hand(run))
    assert rest_of_run(run) == pytest.approx(merge_need(run), rel=0.01)
    assert next_step(run.ranks / "a-0.jsonl") == f"hpcjobs resume {run.root}"
    assert next_step(run.root.parent / "elsewhere") == "the same command again"


def test_a_shortage_is_told_while_there_is_one(disk: Disk, run: RunPaths) -> None:
    assert shortage(run) is None
    disk.fill(leave=PAGE)
    words = f"4.1 kB free on the file system at {disk.path}, where {run.root} needs about "
    assert (shortage(run) or "").startswith(words)


def test_a_heartbeat_goes_on(disk: Disk, run: RunPaths) -> None:
    """Its room was taken by the first beat."""
    vitals, path = (
        Vitals(rank=0, attempt="a", host="here", world_size=1, identity=Identity.own().values()),
        run.heartbeat("a", 0),
    )
    with Heartbeat(path, vitals, 60.0) as heartbeat:
        disk.fill()
        heartbeat.vitals.samples = 12_345
        heartbeat.write()
        told = read_heartbeat(path)
        assert told is not None
        assert told.samples == 12_345
    ended = read_heartbeat(path)
    assert ended is not None
    assert ended.state == "done"


def test_a_rank_log_loses_lines_and_says_so_once(disk: Disk, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log, path = logging.getLogger("hpcjobs.test"), disk.path / "a-0.log"
    with rank_log(path, LONE.rank):
        log.info("first")
        disk.fill()
        for number in range(100):
            log.info("lost %d %s", number, "x" * PAGE)
        disk.clear()
        log.info("after")
        log.info("last")
    lines = path.read_text().splitlines()
    assert lines[0].endswith("INFO first")
    assert "INFO after (" in lines[-2]
    assert lines[-2].endswith("earlier lines are lost: this file could not be written)")
    assert lines[-1].endswith("INFO last")
    (complaint,) = capfd.readouterr().err.splitlines()
    assert complaint.startswith(f"error: {path} cannot be written: No space left on device")


def test_a_rank_log_that_cannot_be_made_costs_no_rank(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with small_disk(tmp_path / "disk", "size=1m,nr_inodes=1") as disk:
        with rank_log(disk.path / "a-0.log", LONE.rank):
            logging.getLogger("hpcjobs.test").info("lost")
    assert len(capfd.readouterr().err.splitlines()) == 1


def refused(run: RunPaths) -> DiskFullError | None:
    """What a merge says that has no room; None where it has."""
    try:
        merge(run)
    except DiskFullError as error:
        return error
    return None


def test_a_merge_without_room_changes_nothing_wherever_it_fails(disk: Disk, run: RunPaths) -> None:
    """Page by page more room, until all of it has some: the table, what is missing, the metrics."""
    assert merge(run).accepted == 0
    run_ranks(run, 1)
    names, failed = (run.results, run.missing, run.metrics), set()
    before = [path.read_bytes() for path in names]
    for pages in range(64):
        disk.fill(leave=pages * PAGE)
        error = refused(run)
        if error is None:
            break
        failed.add(error.path)
        pattern = f"{run.root}/.* cannot be written.* needed: about .*, then: hpcjobs merge {run.root}$"
        assert re.match(pattern, str(error))
        assert [path.read_bytes() for path in names] == before
        assert hidden(run.root) == []
    assert failed == {run.results, run.metrics}
    assert (run.results.read_bytes(), said(run)) == undisturbed(ROWS)
    assert missing_lines(run) == {}


def test_what_is_missing_needs_room_too(disk: Disk, tmp_path: Path) -> None:
    run = plan_run(disk.path / "run", 2000)
    merge(run)
    before, needed = run.metrics.read_bytes(), run.results.stat().st_size
    disk.fill(leave=needed + 2 * PAGE)
    with pytest.raises(DiskFullError, match=f"{run.missing} cannot be written"):
        merge(run)
    assert (run.metrics.read_bytes(), hidden(run.root)) == (before, [])


def test_new_scores_without_room_change_nothing(disk: Disk, run: RunPaths) -> None:
    run_ranks(run, 1)
    before = outcome(run)[1:]
    disk.fill()
    with pytest.raises(DiskFullError, match=f"then: hpcjobs score {run.root}"):
        rescore(run, ["f1"], None)
    assert (run.results.read_bytes(), said(run), hidden(run.root)) == (*before, [])


def test_a_sort_without_room_leaves_nothing(disk: Disk) -> None:
    disk.fill(leave=16 * PAGE)

    def sort() -> None:
        schema = journal_schema(pa.schema([]))
        with Spill(disk.path, 2000, schema, 1000) as spill:
            spill.add(table_of([record_of(index, 0) for index in range(1000)], schema))
            list(spill.buckets(2000))

    with pytest.raises(OSError, match="No space left"):
        sort()
    assert os.listdir(disk.path) == ["ballast"]


def test_the_merge_command_says_it_and_ends_with_1(disk: Disk, run: RunPaths) -> None:
    run_ranks(run, 1)
    disk.fill()
    done = hpcjobs("merge", run.root)
    assert done.returncode == 1
    pattern = rf"^error: {run.results} cannot be written: No space left on device: 0 bytes free on the file system at "
    assert re.search(rf"{pattern}{disk.path}; needed: about .*, then: hpcjobs merge {run.root}$", done.stderr, re.M)
    assert not run.metrics.exists()
    disk.fill(leave=16 * PAGE)  # the results have room, the report has not
    done = hpcjobs("merge", run.root)
    assert done.returncode == 0
    assert f"{run.report} cannot be written" in done.stderr
    assert said(run) == undisturbed(ROWS)[1]
    done = hpcjobs("report", run.root)
    assert (done.returncode, run.report.exists()) == (1, False)
    assert done.stderr.startswith(f"error: {run.report} cannot be written")
    assert done.stderr.endswith(f"then: hpcjobs report {run.root}\n")
    disk.clear()
    assert hpcjobs("merge", run.root).returncode == 0
    assert run.report.exists()


def test_submit_without_room_leaves_no_folder(disk: Disk, run: RunPaths) -> None:
    disk.fill(leave=2 * PAGE)
    folder = disk.path / "other"
    words = ("submit", "eval", "--config", run.config, "--run-dir", folder, "--executor", "local", "--yes")
    done = hpcjobs(*words, "--name", "other")
    assert (done.returncode, folder.exists()) == (1, False)
    pattern = f"error: {folder}/.* cannot be written: No space left on device: .* file system at {disk.path}; "
    assert re.search(
        pattern + "needed: about .* MB; free space there, then: the same command again$", done.stderr, re.M
    )


def test_a_local_run_that_outgrows_its_disk_is_resumed_when_that_has_grown(tmp_path: Path, ram: Path) -> None:
    template = plan_run(tmp_path / "template", ROWS)
    with small_disk(ram / "disk", "size=300k") as disk:  # a short path: an error is told in 400 characters
        run = RunPaths(disk.path / "run")
        words = ("--config", template.config, "--run-dir", run.root, "--name", "run", "--ntasks-per-node", "2")
        done = hpcjobs("submit", "eval", *words, "--executor", "local", "--wait", "--yes")
        assert done.returncode == 1, done.stdout + done.stderr
        pattern = rf"{run.root}/(ranks|claims)/\S+ cannot be written: No space left on device: .* file system at "
        pattern += rf"{disk.path}; needed: about .* MB; free space there, then: hpcjobs resume {run.root}"
        assert re.search(pattern, done.stderr), done.stderr
        assert not run.metrics.exists() or not read_json(run.metrics)["complete"]
        kept = {record.index for path in run.journals() for record in records_in(path)}
        disk.remount("size=20m")
        done = hpcjobs("resume", run.root, "--wait", "--yes")
        assert done.returncode == 0, done.stdout + done.stderr
        assert (run.results.read_bytes(), said(run)) == undisturbed(ROWS)
        again = [r.index for path in run.journals() if "local1t" in path.name for r in records_in(path)]
        assert sorted({*again, *kept}) == list(range(ROWS))
        assert kept.isdisjoint(again), "what was finished is not run again"
