from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from hpcjobs.errors import MergeError
from hpcjobs.merge.eval import merge
from hpcjobs.merge.results import ROW_GROUP
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.json_columns import python_rows
from hpcjobs.run_folder.ledger.chunks import ChunkList
from hpcjobs.run_folder.ledger.claims import Claims
from hpcjobs.run_folder.paths import RunPaths
from tests.runs import (
    answer,
    cancelled_at_end,
    hpcjobs,
    missing_lines,
    next_round,
    outcome,
    plan_run,
    records_in,
    rows_of,
    run_ranks,
    said,
    settle_by_hand,
    undisturbed,
    write_journal,
)

ROWS = 97


@pytest.fixture
def paths(ram: Path) -> RunPaths:
    """A finished run of two ranks, both with work in their journals; not merged yet."""
    found = plan_run(ram / "run", ROWS, run={"heartbeat": 0.2, "sharding": "static"})
    run_ranks(found, 2)
    assert all(len(records_in(path)) > ROWS // 4 for path in found.journals())
    return found


@pytest.mark.parametrize("rows", [0, 1, 7, ROWS])
@pytest.mark.parametrize("sharding", ["dynamic", "static"])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_the_same_table_and_metrics_for_any_number_of_ranks(ram: Path, world: int, sharding: str, rows: int) -> None:
    paths = plan_run(ram / "run", rows, run={"heartbeat": 0.2, "sharding": sharding})
    run_ranks(paths, world)
    merged, content, values = outcome(paths)
    assert merged.complete
    assert paths.missing.read_bytes() == b""
    assert (content, values) == undisturbed(rows)
    assert read_json(paths.metrics)["warnings"] == expected_warnings(rows)
    table = pq.read_table(paths.results)
    assert table.column("index").to_pylist() == list(range(rows))
    assert table.column("id").to_pylist() == [f"row-{index}" for index in range(rows)]


def expected_warnings(rows: int) -> list[str]:
    """The plan's notes, and what the merge counts."""
    failing = [number for number, row in enumerate(rows_of(rows)) if not row["divisor"]]
    if not failing:
        return []
    first = f"row {failing[0]} (id 'row-{failing[0]}'): integer division or modulo by zero"
    return [
        f"{len(failing)} of {rows} rows end in an error; the first is {first}",
        f"{len(failing)} samples ended in an error and count 0 in every metric",
    ]


def test_the_table_says_what_was_asked_and_what_came(paths: RunPaths) -> None:
    merge(paths)
    for row, asked in zip(python_rows(pq.read_table(paths.results)), rows_of(ROWS), strict=True):
        prompt = f"{asked['question']} 60"
        failed = asked["divisor"] == 0
        assert row["completion"] == ("" if failed else answer(prompt))
        assert row["prompt_tokens"] == (0 if failed else len(prompt.split()))
        assert (row["error"] or {}).get("type") == ("ZeroDivisionError" if failed else None)
        right = not failed and answer(prompt) == asked["gold"]
        assert row["scores"]["exact_match"] == float(right)
        assert row["input"] == {name: asked[name] for name in ("question", "divisor", "gold", "mixed")}
        assert type(row["input"]["mixed"]) is type(asked["mixed"])


def test_the_metrics_are_the_means_of_the_scores(paths: RunPaths) -> None:
    merge(paths)
    scores = [row["exact_match"] for row in pq.read_table(paths.results).column("scores").to_pylist()]
    metrics, counts = said(paths)["metrics"], said(paths)["counts"]
    assert 0.2 < sum(scores) / ROWS < 0.4
    assert metrics["exact_match"]["value"] == pytest.approx(sum(scores) / ROWS, abs=1e-12)
    assert metrics["exact_match"]["n"] == counts["rows"] == counts["accepted"] == ROWS
    errors = sum(not row["divisor"] for row in rows_of(ROWS))
    assert counts["errors"] == counts["finish_reasons"]["error"] == errors > 0
    assert (counts["missing"], counts["duplicates"], counts["foreign"]) == (0, 0, 0)


def test_merging_again_gives_the_same(paths: RunPaths) -> None:
    first = outcome(paths)
    names = sorted(path.name for path in paths.root.iterdir())
    assert outcome(paths) == first
    assert sorted(path.name for path in paths.root.iterdir()) == names, "a temporary file was left"


def test_a_lost_journal_costs_its_samples_alone_and_resume_brings_them_back(paths: RunPaths) -> None:
    lost = {record.index for record in records_in(paths.journal("a", 1))}
    paths.journal("a", 1).unlink()
    told = hpcjobs("merge", paths.root)
    assert told.returncode == 3, told.stderr
    assert "INCOMPLETE" in told.stdout
    assert missing_lines(paths) == dict.fromkeys(sorted(lost), "journal a-1.jsonl is gone")
    assert "journal a-1.jsonl is gone" in read_json(paths.metrics)["warnings"]
    counts = said(paths)["counts"]
    assert (said(paths)["complete"], counts["accepted"], counts["missing"]) == (False, ROWS - len(lost), len(lost))
    kept = pq.read_table(paths.results).column("index").to_pylist()
    assert kept == sorted(set(range(ROWS)) - lost)
    with cancelled_at_end(paths):
        resumed = hpcjobs("resume", paths.root, "--ntasks-per-node", "2", "--wait", "--yes")
    assert resumed.returncode == 0, resumed.stderr
    assert f"{len(lost)} of {ROWS} samples" in resumed.stderr
    assert (paths.results.read_bytes(), said(paths)) == undisturbed(ROWS)
    assert paths.missing.read_bytes() == b""
    again = hpcjobs("resume", paths.root)
    assert (again.returncode, "complete: nothing to resume" in again.stderr) == (0, True), again.stderr


def test_a_lost_file_of_the_samples_of_a_takeover_is_named(ram: Path) -> None:
    """What counts of a chunk may lie in two journals: the one that is gone is the reason."""
    paths = plan_run(ram / "run", ROWS)
    records, claims, first = settle_by_hand(paths), Claims(paths.round(0)), ChunkList.read(paths.chunks(0))[0]
    verdict = read_json(paths.round(0) / "0.done")
    former = [{"journal": "a-9.jsonl", "generation": 0, "indexes": [first[0]]}]
    (paths.round(0) / "0.done").write_text(str(verdict | {"former": former}).replace("'", '"'))
    assert claims.read_verdict(0, "done").former[0].indexes == (first[0],)
    write_journal(paths, records)
    merge(paths)
    assert missing_lines(paths) == {first[0]: "journal a-9.jsonl is gone"}


def test_a_copy_under_another_name_counts_nothing(paths: RunPaths) -> None:
    (paths.ranks / "a-7.jsonl").write_bytes(paths.journal("a", 0).read_bytes())
    assert outcome(paths)[1:] == undisturbed(ROWS)
    assert "journal a-7.jsonl is not used: no settled claim names it" in read_json(paths.metrics)["warnings"]


def test_swapped_journals_count_nothing_until_they_are_put_right(paths: RunPaths) -> None:
    swap(paths)
    merged, _, values = outcome(paths)
    assert (len(merged.missing), values["complete"], values["counts"]["foreign"]) == (ROWS, False, ROWS)
    assert set(missing_lines(paths).values()) == {f"journal a-{rank}.jsonl has no record of it" for rank in (0, 1)}
    assert f"{ROWS} foreign records were not used" in read_json(paths.metrics)["warnings"]
    swap(paths)
    assert outcome(paths)[1:] == undisturbed(ROWS)


def swap(paths: RunPaths) -> None:
    first, second = paths.journals()
    first.rename(paths.ranks / "aside")
    second.rename(first)
    (paths.ranks / "aside").rename(second)


def test_a_line_that_stands_twice_counts_once(paths: RunPaths) -> None:
    journal = paths.journal("a", 0)
    records = records_in(journal)
    write_journal(paths, [*records, *records[:5]], journal.name)
    merged, content, values = outcome(paths)
    assert merged.complete
    assert values["counts"].pop("duplicates") == 5
    expected, whole = undisturbed(ROWS)
    assert (content, values["metrics"]) == (expected, whole["metrics"])


@pytest.mark.parametrize("copies", [1, 2])
def test_two_lines_that_differ_count_as_none_until_the_sample_is_run_again(paths: RunPaths, copies: int) -> None:
    journal = paths.journal("a", 0)
    records = records_in(journal)
    bad = records[3]
    write_journal(paths, [*records, *[replace(bad, completion="another")] * copies], journal.name)
    merged, _, values = outcome(paths)
    assert missing_lines(paths) == {bad.index: "its journal has two records that differ"}
    assert list(merged.missing) == [bad.index]
    assert values["complete"] is False
    assert next_round(paths) == [bad.index]
    run_ranks(paths, 2, "b")
    merged, content, values = outcome(paths)
    assert merged.complete
    assert (content, values["metrics"]) == (undisturbed(ROWS)[0], undisturbed(ROWS)[1]["metrics"])
    assert paths.missing.read_bytes() == b""


def test_a_foreign_id_is_named_and_run_again(paths: RunPaths) -> None:
    journal = paths.journal("a", 0)
    records = records_in(journal)
    bad = records[3]
    write_journal(paths, [replace(bad, id="stranger") if r == bad else r for r in records], journal.name)
    values = outcome(paths)[2]
    assert missing_lines(paths) == {bad.index: "its record has the foreign id 'stranger'"}
    assert (values["complete"], values["counts"]["foreign"]) == (False, 1)
    next_round(paths)
    run_ranks(paths, 1, "b")
    assert outcome(paths)[1] == undisturbed(ROWS)[0]


def test_a_torn_tail_is_a_missing_sample(paths: RunPaths) -> None:
    journal = paths.journal("a", 0)
    last = records_in(journal)[-1]
    journal.write_bytes(journal.read_bytes()[:-20])
    merge(paths)
    assert missing_lines(paths) == {last.index: "journal a-0.jsonl has no record of it"}


def test_a_broken_line_inside_ends_the_merge_and_spares_the_older_results(paths: RunPaths) -> None:
    before = outcome(paths)[1:]
    journal = paths.journal("a", 0)
    lines = journal.read_bytes().split(b"\n")
    offset = len(lines[0]) + 1
    journal.write_bytes(b"\n".join([lines[0], lines[1][:-9], *lines[2:]]))
    with pytest.raises(MergeError, match=f"{journal}: broken record at offset {offset}"):
        merge(paths)
    told = hpcjobs("merge", paths.root)
    assert (told.returncode, f"offset {offset}" in told.stderr, "Traceback" in told.stderr) == (1, True, False)
    assert (paths.results.read_bytes(), said(paths)) == before
    assert not list(paths.root.glob(".*")), "a temporary file was left"


def test_before_anything_ran_all_is_missing(ram: Path) -> None:
    paths = plan_run(ram / "run", 7)
    merged, _, values = outcome(paths)
    assert list(merged.missing) == list(range(7))
    assert all(reason.endswith("was never started") for reason in missing_lines(paths).values())
    assert values["metrics"]["exact_match"] == {
        "value": None, "stderr": None, "ci95": None, "bootstrap_ci95": None, "n": 0,
    }  # fmt: skip
    assert len(pq.read_table(paths.results)) == 0


def test_generate_has_answers_without_scores(ram: Path) -> None:
    paths = plan_run(ram / "run", 7, "generate")
    run_ranks(paths, 2)
    assert merge(paths).complete
    assert "scores" not in pq.read_table(paths.results).column_names
    assert said(paths)["metrics"] == {}


@pytest.mark.parametrize("bucket", [ROW_GROUP, 2 * ROW_GROUP, 8 * ROW_GROUP])
def test_many_buckets_come_in_input_order(ram: Path, monkeypatch: pytest.MonkeyPatch, bucket: int) -> None:
    """More rows than a row group, or a bucket, holds, journalled in random order: the same bytes for any bucket."""
    monkeypatch.setattr("hpcjobs.merge.eval.MOST_ROWS", bucket)
    rows = 2 * ROW_GROUP + 1000
    paths = plan_run(ram / "run", rows)
    records = settle_by_hand(paths)
    random.Random(0).shuffle(records)
    lost = {5, ROW_GROUP - 1, ROW_GROUP, rows - 1}
    write_journal(paths, [record for record in records if record.index not in lost])
    merged = merge(paths)
    assert set(merged.missing) == set(missing_lines(paths)) == lost
    table = pq.read_table(paths.results, columns=["index", "completion"])
    assert table.column("index").to_pylist() == [index for index in range(rows) if index not in lost]
    assert table.column("completion")[-1].as_py() == f"answer {rows - 2}"
    assert merged.metrics["exact_match"]["n"] == rows - len(lost)
    file = pq.ParquetFile(paths.results)
    groups = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    assert groups == [ROW_GROUP - 2, ROW_GROUP - 1, 999]
    assert not list(paths.root.glob(".*"))
