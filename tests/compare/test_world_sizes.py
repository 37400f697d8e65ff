"""verify: flips are found in real tables, and the same job at several world sizes is judged by them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hpcjobs.compare.flips import keep_first, write_flips
from hpcjobs.compare.world_sizes import Mismatch, WorldSizeComparison
from hpcjobs.errors import MergeError
from hpcjobs.launch.slurm import clean_environment
from hpcjobs.merge.eval import merge
from hpcjobs.run_folder.paths import RunPaths
from tests.runs import DEADLINE, hpcjobs, plan_run, rows_of, run_ranks

Row = dict[str, Any]
ROWS = 25


def row(index: int, **changes: Any) -> Row:
    values: Row = {
        "index": index, "id": f"row-{index}", "completion": f"answer {index}", "finish_reason": "stop",
        "prompt_tokens": 2, "completion_tokens": 3, "scores": {"exact_match": 1.0}, "error": None,
        "input": {"question": f"q{index}"},
    }  # fmt: skip
    return values | changes


SCHEMA = pa.schema(
    [
        ("index", pa.int64()), ("id", pa.string()), ("completion", pa.string()), ("finish_reason", pa.string()),
        ("prompt_tokens", pa.int64()), ("completion_tokens", pa.int64()),
        ("scores", pa.struct([("exact_match", pa.float64())])),
        ("error", pa.struct([("type", pa.string()), ("message", pa.string())])),
        ("input", pa.struct([("question", pa.string())])),
    ]
)  # fmt: skip


class Tables:
    """results.parquet of several world sizes, made by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.files = folder, dict[int, Path]()

    def add(self, size: int, rows: list[Row], group: int = 1000) -> None:
        self.files[size] = self.folder / f"w{size}.parquet"
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), self.files[size], row_group_size=group)

    def compare(self) -> tuple[list[Mismatch], WorldSizeComparison]:
        comparison = WorldSizeComparison(self.files)
        return list(comparison.flips()), comparison


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path)


def test_equal_tables_have_no_flips_however_they_are_cut(tables: Tables) -> None:
    rows = [row(index) for index in range(20_000)]
    for size, group in ((1, 20_000), (2, 700), (4, 8192)):
        tables.add(size, rows, group)
    flips, comparison = tables.compare()
    assert flips == []
    assert (comparison.samples, comparison.absent) == (20_000, {1: 0, 2: 0, 4: 0})
    assert comparison.byte_identical() is False, "other row groups are other bytes"
    assert WorldSizeComparison({1: tables.files[1], 2: tables.files[1]}).byte_identical() is True


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("completion", "answer 7 "), ("completion", None), ("finish_reason", "length"), ("prompt_tokens", 3),
        ("completion_tokens", None), ("scores", {"exact_match": math.nextafter(1.0, 0.0)}),
        ("scores", {"exact_match": None}), ("error", {"type": "E", "message": "m"}), ("id", "row-8"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", [0, 7, 8191, 8192, 8999])
def test_one_column_of_one_sample_is_found(tables: Tables, field: str, value: Any, place: int) -> None:
    rows = [row(index) for index in range(9000)]
    tables.add(1, rows)
    tables.add(2, [*rows[:place], row(place, **{field: value}), *rows[place + 1 :]])
    tables.add(4, rows)
    [flip], comparison = tables.compare()
    assert (flip.index, flip.id, flip.differ, flip.fields) == (place, f"row-{place}", (2,), (field,))
    assert list(flip.values) == [1, 2], "4 is as 1 is, and is not shown"
    assert (flip.values[1][field], flip.values[2][field]) == (rows[place][field], value)
    assert comparison.samples == 9000


def test_the_first_world_size_is_the_measure(tables: Tables) -> None:
    tables.add(4, [row(0, completion="odd one"), row(1)])
    tables.add(1, [row(0), row(1)])
    tables.add(2, [row(0), row(1, finish_reason="length", completion="x")])
    first, second = tables.compare()[0]
    assert (first.differ, first.fields, list(first.values)) == ((1, 2), ("completion",), [4, 1, 2])
    assert (second.differ, second.fields) == ((2,), ("completion", "finish_reason"))


def test_what_may_depend_on_the_run_is_not_compared_and_a_nan_is_itself(tables: Tables) -> None:
    tables.add(1, [row(0, scores={"exact_match": math.nan}, input={"question": "a"}), row(1)])
    tables.add(2, [row(0, scores={"exact_match": math.nan}, input={"question": "b"}), row(1)])
    assert tables.compare()[0] == []


def test_samples_that_one_lacks_are_counted_and_the_others_compared(tables: Tables) -> None:
    tables.add(1, [row(index) for index in range(1, 10_000) if index != 5])
    tables.add(2, [row(index, completion="x" if index in (0, 5, 6) else f"answer {index}") for index in range(9_990)])
    tables.add(4, [row(index) for index in range(10_000)])
    flips, comparison = tables.compare()
    assert [(flip.index, flip.differ, list(flip.values)) for flip in flips] == [
        (0, (4,), [2, 4]), (5, (4,), [2, 4]), (6, (2,), [1, 2]),
    ]  # fmt: skip
    assert comparison.absent == {1: 2, 2: 10, 4: 0}
    assert comparison.samples == 10_000 - 12


def test_tables_without_scores_or_rows_are_compared_too(tables: Tables, tmp_path: Path) -> None:
    bare = pa.Table.from_pylist([row(0)], SCHEMA).drop_columns(["scores"])
    pq.write_table(bare, tmp_path / "bare.parquet")
    assert list(WorldSizeComparison({1: tmp_path / "bare.parquet", 2: tmp_path / "bare.parquet"}).flips()) == []
    tables.add(1, [row(0)])
    [flip] = WorldSizeComparison({1: tables.files[1], 2: tmp_path / "bare.parquet"}).flips()
    assert flip.fields == ("scores",)
    tables.add(1, [])
    tables.add(2, [])
    assert tables.compare()[0] == []


def test_a_file_that_cannot_be_compared_is_named(tables: Tables, tmp_path: Path) -> None:
    tables.add(1, [row(0), row(1), row(2)])
    for wrong in ([row(0), row(2), row(1)], [row(0), row(0)], [row(-1), row(0)]):
        tables.add(2, wrong)
        with pytest.raises(MergeError, match=r"w2\.parquet is not in input order"):
            tables.compare()
    (tmp_path / "w2.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(MergeError, match=r"w2\.parquet cannot be read"):
        tables.compare()


def test_memory_stays_flat_and_flips_go_to_their_file(tables: Tables, tmp_path: Path) -> None:
    """Every sample differs: neither tables nor flips are held."""

    def peak(count: int) -> int:
        for size in (1, 2):
            tables.files[size] = tmp_path / f"w{size}.parquet"
            texts = [f"answer {index} of {size}" for index in range(count)]
            pq.write_table(
                pa.table({"index": range(count), "id": texts, "completion": texts}),
                tables.files[size],
                row_group_size=4096,
            )
        before = pa.total_allocated_bytes()
        tracemalloc.start()
        kept = list[Mismatch]()
        found = keep_first(WorldSizeComparison(tables.files).flips(), 3, kept)
        written = write_flips(tmp_path / "flips.jsonl", found)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (written, [flip.index for flip in kept]) == (count, [0, 1, 2])
        assert pa.total_allocated_bytes() - before < 1 << 20
        return used

    small, large = peak(9_000), peak(27_000)
    assert large < 1.3 * small, (small, large)
    lines = (tmp_path / "flips.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["index"] for line in lines] == [*range(27_000)]
    assert (tmp_path / "flips.jsonl").stat().st_mode & 0o777 == 0o600


def test_a_search_that_breaks_off_leaves_no_file(tables: Tables, tmp_path: Path) -> None:
    tables.add(1, [row(0), row(1)])
    tables.add(2, [row(0, completion="x"), row(0)])
    with pytest.raises(MergeError):
        write_flips(tmp_path / "flips.jsonl", WorldSizeComparison(tables.files).flips())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w1.parquet", "w2.parquet"]


def test_real_runs_on_other_ranks_and_of_another_prompt(ram: Path) -> None:
    files = {}
    for size, prompt in ((1, "{{ question }}"), (3, "{{ question }}"), (2, "{{ question }}{{ '!' * (index == 4) }}")):
        paths = plan_run(ram / f"w{size}", ROWS, task={"prompt": prompt})
        run_ranks(paths, size)
        assert merge(paths).complete
        files[size] = paths.results
    same = WorldSizeComparison({1: files[1], 3: files[3]})
    assert (list(same.flips()), same.samples, same.byte_identical()) == ([], ROWS, True)
    [flip] = WorldSizeComparison(files).flips()
    assert (flip.index, flip.differ, flip.fields[0]) == (4, (2,), "completion")


METRIC = """
import os, sys

def ranks():
    return int(os.environ.get("SUBMITIT_LOCAL_NTASKS", 0))

if ranks() == 3 or (sys.argv[0].endswith("supervisor.py") and sys.argv[1].endswith("w4")):
    raise RuntimeError(f"not in this process: {ranks()}")

class Threads:
    needs_target = False
    def score(self, completion, target, row):
        return float(os.environ["OMP_NUM_THREADS"])

class Leaks:
    needs_target = False
    def score(self, completion, target, row):
        if row["id"] == "row-2" and ranks() > 1:
            raise ValueError("bad luck\x1b[2J")
        return float(ranks() if row["id"] in ("row-1", "row-5", "row-7") else 0)
"""


class User:
    """A folder with a config of the dummy engine and a metric of the user's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "mine.py").write_text(METRIC)
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of(ROWS)))
        config = {
            "model": {"engine": "dummy"}, "data": {"name": "rows.jsonl"}, "run": {"heartbeat": 0.2, "auto_resume": 0},
            "task": {"prompt": "{{ question }}", "target": "{{ gold }}", "metrics": ["exact_match"]},
        }  # fmt: skip
        (folder / "c.yaml").write_text(json.dumps(config))

    def verify(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`hpcjobs verify c.yaml ...` on this machine, in the folder `v`."""
        command = [sys.executable, "-m", "hpcjobs", "verify", "c.yaml", "--executor", "local", "--run-dir", "v", *words]
        env = clean_environment() | {"OMP_NUM_THREADS": "5"}
        return subprocess.run(
            command, cwd=self.folder, env=env, capture_output=True, text=True, timeout=3 * DEADLINE, check=False
        )


@pytest.fixture
def user(ram: Path) -> User:
    return User(ram)


def test_the_same_at_every_world_size_with_threads_that_are_its_own(user: User) -> None:
    """Exit code 0; with `deterministic` the number of threads is neither the shell's nor the world size's affair."""
    done = user.verify("--world-sizes", "2,1,3", "--set", "run.deterministic=true", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["identical"], said["byte_identical"], said["samples"]) == (True, True, ROWS)
    assert (said["flips"], said["flip_count"], said["next"]) == ([], 0, None)
    assert [(run["world_size"], run["state"], run["missing"]) for run in said["runs"]] == [
        (2, "complete", 0), (1, "complete", 0), (3, "complete", 0),
    ]  # fmt: skip
    for size in (2, 1, 3):
        run = RunPaths(user.folder / "v" / f"w{size}")
        assert len(run.journals()) == size
        assert str(run.root) in {entry["folder"] for entry in said["runs"]}
    assert "w3      eval: 1 node x 3 tasks = 3 ranks on CPU" in done.stderr


@pytest.mark.parametrize(("sets", "threads"), [((), 1), (("--set", "cluster.cpus_per_task=3"), 3)])
def test_threads_are_fixed_where_the_run_is_deterministic(user: User, sets: tuple[str, ...], threads: int) -> None:
    words = ("--set", "task.metrics=[mine:Threads]", "--set", "run.deterministic=true", "--max-samples", "4")
    done = user.verify("--world-sizes", "1,2", *words, *sets)
    assert done.returncode == 0, done.stdout + done.stderr
    for size in (1, 2):
        table = pq.read_table(user.folder / "v" / f"w{size}" / "results.parquet")
        assert {score["Threads"] for score in table.column("scores").to_pylist()} == {threads}


def test_flips_are_shown_with_what_differs_and_the_next_command(user: User) -> None:
    words = ("--world-sizes", "1,2,5", "--set", "task.metrics=[mine:Leaks]", "--max-samples", "20")
    done = user.verify(*words, "--limit", "3")
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "differs   4 of 20 samples at world sizes 1, 2, 5; results.parquet is not byte-identical"
    assert lines[1] == "'row-1' (index 1): at 2, 5 not as at 1"
    assert [line.split(": ")[1] for line in lines[2:5]] == ["{'Leaks'", "{'Leaks'", "{'Leaks'"]
    assert "row-5" in done.stdout
    assert "row-7" not in done.stdout
    assert "\\x1b[2J" in done.stdout
    assert "\x1b" not in done.stdout
    assert f"all 4 samples that differ: {user.folder}/v/flips.jsonl" in done.stdout
    assert (
        "next: hpcjobs verify c.yaml --world-sizes 1,2,5 --executor local --max-samples 20 "
        "--set 'task.metrics=[mine:Leaks]' --set run.deterministic=true" in done.stderr
    )
    again = user.verify(*words, "--json")
    assert again.returncode == 2, "the folder is taken"
    assert "run folder v/w1 exists" in again.stderr.replace(str(user.folder) + "/", "")
    flips = [json.loads(line) for line in (user.folder / "v" / "flips.jsonl").read_text().splitlines()]
    assert [(flip["id"], flip["differ"], flip["fields"]) for flip in flips] == [
        ("row-1", [2, 5], ["scores"]), ("row-2", [2, 5], ["scores", "metric_errors"]),
        ("row-5", [2, 5], ["scores"]), ("row-7", [2, 5], ["scores"]),
    ]  # fmt: skip


def test_an_incomplete_run_ends_with_3_and_a_failed_one_with_1(user: User) -> None:
    """At 3 ranks the metric cannot be imported by the ranks, at 4 not by the merge."""
    words = ("--set", "task.metrics=[mine:Threads]", "--set", "run.deterministic=true", "--json")
    done = user.verify("--world-sizes", "1,2,3", *words)
    said = json.loads(done.stdout)
    assert done.returncode == 3, done.stderr
    assert (said["identical"], said["byte_identical"], said["flip_count"]) == (False, False, 0)
    assert [(run["state"], run["missing"]) for run in said["runs"]] == [
        ("complete", 0), ("complete", 0), ("incomplete", ROWS),
    ]  # fmt: skip
    done = user.verify("--world-sizes", "1,4", *words[:-1], "--run-dir", "u")
    assert done.returncode == 1, done.stdout
    assert "nothing to compare: fewer than two of the runs at world sizes 1, 4 have results" in done.stdout
    assert f"next: hpcjobs logs --errors {user.folder}/u/w4" in done.stderr


def test_generate_has_no_scores_to_compare(user: User) -> None:
    done = user.verify("--world-sizes", "1,2", "--job", "generate", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["identical"] is True
    assert "scores" not in pq.read_schema(user.folder / "v" / "w2" / "results.parquet").names


@pytest.mark.model
def test_a_real_model_that_samples_is_the_same_at_one_and_two_ranks(ram: Path) -> None:
    """Batches in bfloat16 at a temperature at which rounding shows: at 0.8 the tiny model answers as it does at 0.

    Another seed gives other texts, so it is sampling that is compared.
    """
    shipped = Path(__file__).resolve().parents[2] / "configs" / "eval.yaml"
    hot = ("--set", "task.generation.temperature=4", "--set", "run.chunk_size=8", "--set", "model.dtype=bfloat16")
    common = ("--executor", "local", "--data", "unified", "--max-samples", "40", "--set", "run.deterministic=true")
    done = hpcjobs("verify", shipped, "--world-sizes", "1,2", "--run-dir", ram / "v", "--json", *common, *hot)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert (said["identical"], said["byte_identical"], said["samples"]) == (True, True, 40)
    other = hpcjobs(
        "submit", "eval", "--config", shipped, "--run-dir", ram / "s", "--wait", *common, *hot, "--set", "run.seed=1"
    )
    assert other.returncode == 0, other.stderr
    files = {1: ram / "v" / "w1" / "results.parquet", 2: ram / "s" / "results.parquet"}
    flips = list(WorldSizeComparison(files).flips())
    assert len(flips) > 10
    assert all("completion" in flip.fields for flip in flips)
