"""What a merge makes of journals and claims written by hand: reasons, counts, and which table stands."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from hpcjobs.merge import eval as merging
from hpcjobs.merge.eval import merge
from hpcjobs.merge.standing import better_standing
from hpcjobs.requests import SampleError
from hpcjobs.run_folder.disk import Space
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.ledger.chunks import ChunkList, write_chunks
from hpcjobs.run_folder.ledger.claims import Claims
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan
from tests.runs import lease_of, missing_lines, plan_run, record_of, settle_by_hand, write_journal

ROWS = 12


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    return plan_run(tmp_path / "run", ROWS, run={"chunk_size": 2})


def files(paths: RunPaths) -> list[bytes]:
    return [path.read_bytes() for path in (paths.results, paths.missing, paths.metrics)]


def test_why_a_sample_is_missing_is_what_the_last_round_that_had_it_says(paths: RunPaths) -> None:
    chunks = ChunkList.read(paths.chunks(0))
    first, claims, members = 0, Claims(paths.round(0)), [chunks[number] for number in range(len(chunks))]
    assert [len(one) for one in members[:4]] == [1, 1, 1, 1]
    settled = {0: "a-0.jsonl", 1: "a-1.jsonl", 2: "a-0.jsonl", 3: "a-2.jsonl"}
    for chunk in settled:
        lease = lease_of(chunk, {"a-0.jsonl": 0, "a-1.jsonl": 1, "a-2.jsonl": 2}[settled[chunk]])
        claims.lease(lease)
        if chunk != 3:
            claims.done(lease)
    write_journal(paths, [record_of(members[0][0], first)], "a-0.jsonl")
    write_journal(paths, [], "a-2.jsonl")
    reasons = {
        members[1][0]: "journal a-1.jsonl is gone",
        members[2][0]: "journal a-0.jsonl has no record of it",
        members[3][0]: "chunk 3 was left unfinished by a-2",
        **{members[chunk][0]: f"chunk {chunk} was never started" for chunk in range(4, ROWS)},
    }
    merged = merge(paths)
    assert missing_lines(paths) == dict(sorted(reasons.items()))
    assert list(merged.missing) == sorted(reasons)
    lines = [json.loads(line) for line in paths.missing.read_text().splitlines()]
    assert [line["id"] for line in lines] == [f"row-{index}" for index in sorted(reasons)]
    assert read_json(paths.metrics)["warnings"][-1] == "journal a-1.jsonl is gone"
    paths.round(1).mkdir()
    write_chunks(paths.chunks(1), [[members[2][0]], [members[4][0]]])
    merge(paths)
    reasons |= {members[2][0]: "chunk 0 was never started", members[4][0]: "chunk 1 was never started"}
    assert missing_lines(paths) == dict(sorted(reasons.items()))


def test_a_sample_that_is_in_no_round_is_missing(paths: RunPaths) -> None:
    paths.chunks(0).unlink()
    write_chunks(paths.chunks(0), [list(range(1, ROWS))])
    write_journal(paths, settle_by_hand(paths))
    assert list(merge(paths).missing) == [0]
    assert missing_lines(paths) == {0: "not in any round"}


def test_records_are_counted_by_what_became_of_them(paths: RunPaths) -> None:
    records = settle_by_hand(paths)
    strangers = [replace(records[0], rank=1), replace(records[1], attempt="b"), replace(records[2], generation=4)]
    failed: dict[str, Any] = {"finish_reason": "error", "error": SampleError("ValueError", "no"), "completion": ""}
    records[3] = replace(records[3], **failed)
    records[4] = replace(records[4], finish_reason="length", prompt_tokens=7, completion_tokens=5)
    write_journal(paths, [*strangers, *records, records[5], records[6]])
    write_journal(paths, records[:2], "z-0.jsonl")
    merged = merge(paths)
    values = read_json(paths.metrics)
    assert merged.complete
    assert values["complete"] is True
    assert values["counts"] == {
        "rows": ROWS, "accepted": ROWS, "missing": 0, "errors": 1, "metric_errors": 0, "duplicates": 2, "foreign": 2,
        "finish_reasons": {"error": 1, "length": 1, "stop": ROWS - 2},
        "prompt_tokens": 2 * ROWS + 5, "completion_tokens": ROWS + 4,
    }  # fmt: skip
    assert list(values["counts"]["finish_reasons"]) == ["error", "length", "stop"]
    assert values["warnings"][-3:] == [
        "journal z-0.jsonl is not used: no settled claim names it",
        "2 foreign records were not used",
        "1 samples ended in an error and count 0 in every metric",
    ]
    assert list(merged.failed) == [records[3].index]
    assert (merged.rows, merged.accepted, merged.kept) == (ROWS, ROWS, "")


def test_a_better_table_stands_until_its_metrics_are_removed(paths: RunPaths) -> None:
    records = settle_by_hand(paths)
    journal = write_journal(paths, records)
    assert merge(paths).kept == ""
    before = files(paths)
    write_journal(paths, records[:-3])
    worse = merge(paths)
    assert worse.kept.startswith(f"{ROWS - 3} of {ROWS} are there now, fewer than the {ROWS} of the table that stands")
    assert len(worse.missing) == 3
    assert files(paths) == before
    assert not [name for name in os.listdir(paths.root) if name.startswith(".")]
    write_journal(paths, [replace(one, completion="another") for one in records])
    assert merge(paths).kept == "", "as many are no worse"
    assert pq.read_table(paths.results)["completion"].to_pylist() == ["another"] * ROWS
    journal.write_bytes(b"")
    assert merge(paths).kept
    paths.metrics.unlink()
    assert merge(paths).kept == ""
    assert len(pq.read_table(paths.results)) == 0


def test_where_failed_samples_run_again_completions_are_compared(paths: RunPaths) -> None:
    write_journal(paths, settle_by_hand(paths))
    merge(paths)
    plan, values = Plan.read(paths.plan), read_json(paths.metrics)
    paths.metrics.write_text(json.dumps(values | {"counts": values["counts"] | {"errors": 4}}))
    assert better_standing(paths, plan, ROWS - 1, 0).startswith(f"{ROWS - 1} of {ROWS} are there now, fewer than")
    paths.round(1).mkdir()
    write_chunks(paths.chunks(1), [[0, 1, 2, 3]], again=True)
    assert better_standing(paths, plan, ROWS - 3, 0) == "", "9 completions are more than 8"
    assert better_standing(paths, plan, ROWS - 3, 1) == ""
    assert "7 of 12 are there now, fewer than the 8 of" in better_standing(paths, plan, ROWS - 3, 2)
    paths.results.unlink()
    assert better_standing(paths, plan, 0) == "", "nothing stands"


@pytest.mark.parametrize("bucket", [4, 8, 100])
def test_row_groups_and_buckets_have_each_row_once(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch, bucket: int
) -> None:
    monkeypatch.setattr(merging, "ROW_GROUP", 4)
    monkeypatch.setattr(merging, "MOST_ROWS", bucket)
    monkeypatch.setattr(merging, "MOST_FILES", 100)
    lost = {3, 4, 11}
    write_journal(paths, [record for record in settle_by_hand(paths) if record.index not in lost][::-1])
    merged = merge(paths)
    assert list(merged.missing) == list(missing_lines(paths)) == sorted(lost)
    rows = pq.read_table(paths.results).to_pylist()
    assert [row["index"] for row in rows] == [index for index in range(ROWS) if index not in lost]
    assert all((row["id"], row["completion"]) == (f"row-{row['index']}", f"answer {row['index']}") for row in rows)
    groups = pq.ParquetFile(paths.results).metadata
    assert [groups.row_group(n).num_rows for n in range(groups.num_row_groups)] == [3, 3, 3]


@pytest.mark.parametrize(
    ("size", "rows", "bucket"),
    [
        (0, 10, 50), (100, 30, 30), (200, 50, 20), (5000, 20, 10), (5000, 50, 10), (5000, 51, 20), (0, 0, 10),
        (100, 1000, 200),
    ],
)  # fmt: skip
def test_a_bucket_is_whole_row_groups_of_not_too_many_bytes_rows_and_files(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch, size: int, rows: int, bucket: int
) -> None:
    for name, value in (("ROW_GROUP", 10), ("MOST_BYTES", 100), ("MOST_ROWS", 50), ("MOST_FILES", 5)):
        monkeypatch.setattr(merging, name, value)
    (paths.ranks / "a-0.jsonl").write_bytes(b"x" * size)
    assert merging._bucket(paths, rows) == bucket


def test_two_records_that_differ_in_their_time_alone_are_of_two_writers(paths: RunPaths) -> None:
    records = settle_by_hand(paths)
    write_journal(paths, [*records, replace(records[4], seconds=9.0), replace(records[5], started_at=9.0)])
    assert sorted(merge(paths).missing) == sorted(record.index for record in records[4:6])
    assert set(missing_lines(paths).values()) == {"its journal has two records that differ"}


def test_what_a_killed_merge_left_is_removed(paths: RunPaths) -> None:
    old = paths.root / ".results.parquet.0123456789ab-1-1.abcdef.tmp"
    old.touch()
    os.utime(old, (1, 1))
    merge(paths)
    assert not old.exists()


@pytest.mark.parametrize(("free", "said"), [(5, True), (6, False), (7, False)])
def test_a_disk_that_may_be_too_small_is_said_before(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, free: int, said: bool
) -> None:
    real = Space.of(paths.root)
    monkeypatch.setattr(merging, "merge_need", lambda paths: 6)
    monkeypatch.setattr(Space, "of", lambda path: replace(real, free=free))
    merge(paths)
    assert ("the merge may need 6" in caplog.text) is said


def test_a_metric_of_the_users_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "only_there.py").write_text(
        "class Own:\n    name = 'own'\n    def score(self, completion, target, row):\n        return 1.0\n"
    )
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(sys, "path", [*sys.path])
    paths = plan_run(tmp_path / "run", 3, task={"metrics": ["only_there:Own"]})
    write_journal(paths, [replace(one, scores={"own": 0.5}) for one in settle_by_hand(paths)])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "only_there")
    sys.path[:] = [one for one in sys.path if not one.startswith(str(tmp_path))]
    assert merge(paths).metrics["own"]["value"] == 0.5
    sys.modules.pop("only_there", None)
