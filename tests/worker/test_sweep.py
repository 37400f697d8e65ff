"""Sweeps: each point is run once and is a row of the table, whatever dies."""

from __future__ import annotations

import functools
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from hpcjobs.commands.status import read_status
from hpcjobs.run_folder.heartbeat import read_heartbeats
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import processes_with
from tests.runs import cancelled_at_end, hpcjobs, wait_for

PROGRAM = """
import json, os, sys, time
lr, seed = float(sys.argv[1].partition("=")[2]), int(sys.argv[2])
print("lr", lr, "seed", seed, os.environ["NOTE"])
if seed == 2 and os.environ["HPCJOBS_TRY"] == "1":
    sys.exit(3)
if seed == 3 and not os.path.exists("mended"):
    os.kill(os.getpid(), 11)
assert json.loads(os.environ["HPCJOBS_POINT"]) == {"lr": lr, "seed": seed}
with open(os.environ["HPCJOBS_RESULT"], "w") as result:
    json.dump({"loss": lr * seed}, result)
"""
GRID = ("--set", "sweep.lr=[0.5, 3e-4]", "--set", "sweep.seed=[1, 2, 3]", "--set", 'cluster.env={NOTE: "s {{ seed }}"}')


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("HPCJOBS_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    if (tmp_path / "runs/s").exists():
        with cancelled_at_end(RunPaths(tmp_path / "runs" / "s")):
            pass


def submit(program: str, ranks: int, *more: str, words: tuple[str, ...] = ("p.py",), wait: bool = True) -> Any:
    Path("p.py").write_text(program)
    how = ("--executor", "local", "--ntasks-per-node", str(ranks), "--gpus", "0", "--name", "s", "--yes")
    fast = ("--set", "run.heartbeat=0.2", "--set", "run.lease_timeout=3.0")
    return hpcjobs("submit", "script", *how, *fast, *(("--wait",) if wait else ()), *more, "--", *words)


def rows(place: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(place / "runs/s/results.parquet").to_pylist()
    return found


def test_each_point_of_a_product_is_a_row_with_what_the_program_said(place: Path) -> None:
    words = ("p.py", "lr={{ lr }}", "{{ seed }}")
    done = submit(PROGRAM, 2, *GRID, "--set", "run.retries=1", "--set", "run.max_errors=0.5", words=words)
    assert done.returncode == 0, done.stderr
    table = rows(place)
    points = [(lr, seed) for lr in (0.5, 3e-4) for seed in (1, 2, 3)]
    assert [(row["input"]["lr"], row["input"]["seed"]) for row in table] == points
    for row, (lr, seed) in zip(table, points, strict=True):
        if seed == 3:
            assert row["error"]["message"].startswith(f"signal SIGSEGV on {os.uname().nodename} in each of 2 tries: lr")
            continue
        said = json.loads(row["completion"])
        assert (said["exit_code"], said["tries"], said["result"]) == (0, seed, {"loss": lr * seed})
        assert said["last_line"] == f"lr {lr} seed {seed} s {seed}"
        assert said["host"] == os.uname().nodename
        assert said["seconds"] > 0
    assert "try 2 of 2" in next((place / "runs/s/logs/points").glob("1-*.out")).read_text()
    Path("mended").touch()
    again = hpcjobs("resume", "s", "--errors", "--wait")
    assert again.returncode == 0, again.stderr
    assert [row["error"] for row in rows(place)] == [None] * 6
    assert hpcjobs("report", "s").returncode == 0


def test_a_file_of_points_and_any_command(place: Path) -> None:
    Path("points.jsonl").write_text('{"name": "a b", "n": 1}\n{"name": "ü\\"", "n": 2}\n')
    words = ("printf", "%s|%s", "{{ name }}", "{{ n + 1 }}")
    assert submit("", 1, "--sweep", "points.jsonl", words=words).returncode == 0
    assert [json.loads(row["completion"])["last_line"] for row in rows(place)] == ["a b|2", 'ü"|3']


SLOW = """
import os, sys, time
with open("runs.txt", "a") as all_runs: all_runs.write(os.environ["HPCJOBS_INDEX"] + "\\n")
time.sleep(0.2)
print("point", sys.argv[1])
"""


def done_more(paths: RunPaths, least: int) -> bool:
    return read_status(paths).done > least


def test_killed_workers_cost_only_the_point_in_hand(place: Path) -> None:
    """Each of 60 points is in the table once; the program of a killed worker does not live on."""
    Path("points.jsonl").write_text("".join(json.dumps({"n": number}) + "\n" for number in range(60)))
    words = ("p.py", "{{ n }}")
    assert submit(SLOW, 3, "--sweep", "points.jsonl", words=words, wait=False).returncode == 0
    paths, kills = RunPaths(place / "runs/s"), 2
    for least in (5, 10):
        wait_for(functools.partial(done_more, paths, least), "some points")
        live = [v for v in read_heartbeats(paths.heartbeats) if v.ended_at is None and v.state == "working"]
        os.kill(live[0].identity["pid"], signal.SIGKILL)
    wait_for(lambda: not read_status(paths).going, "the end", 120)
    assert read_status(paths).state == "complete"
    table = rows(place)
    assert [json.loads(row["completion"])["last_line"] for row in table] == [f"point {n}" for n in range(60)]
    runs = Path("runs.txt").read_text().split()
    assert 60 <= len(runs) <= 60 + kills
    assert not processes_with("HPCJOBS_RUNS", str(place / "runs"))


def test_a_point_that_cancel_has_interrupted_has_not_failed(place: Path) -> None:
    Path("points.jsonl").write_text("".join(json.dumps({"n": number}) + "\n" for number in range(4)))
    program = "import os, sys, time; open('on', 'w').close(); time.sleep(0 if os.path.exists('quick') else 100)"
    assert submit(program, 1, "--sweep", "points.jsonl", words=("p.py", "{{ n }}"), wait=False).returncode == 0
    wait_for(lambda: Path("on").exists(), "the program")
    time.sleep(0.5)
    assert hpcjobs("cancel", "s").returncode == 0
    Path("quick").touch()
    assert hpcjobs("resume", "s", "--wait").returncode == 0
    assert [row["error"] for row in rows(place)] == [None] * 4


def test_a_point_may_take_longer_than_a_sample(place: Path) -> None:
    how = ("--set", "sweep.n=[1]", "--set", "run.progress_timeout=1")
    assert submit("import time; time.sleep(4)", 1, *how).returncode == 0
    assert [row["error"] for row in rows(place)] == [None]


def test_a_secret_among_the_words_is_the_programs_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "s3cr3t-0123456789")
    program = "import sys; open('got', 'a').write(sys.argv[1] + sys.argv[2])"
    words = ("p.py", "--api-key=s3cr3t-0123456789", "{{ n }}")
    assert submit(program, 1, "--set", "sweep.n=[1, 2]", words=words).returncode == 0
    assert Path("got").read_text() == "--api-key=s3cr3t-01234567891--api-key=s3cr3t-01234567892"
    kept = [path for path in (place / "runs").rglob("*") if path.is_file() and b"s3cr3t" in path.read_bytes()]
    assert kept == []


def test_an_eval_is_no_sweep(place: Path) -> None:
    done = hpcjobs("submit", "eval", "--set", "model.engine=dummy", "--set", "sweep.n=[1]", "--name", "s", "--yes")
    assert done.returncode == 2
    assert "sweep is for programs" in done.stderr
    done = hpcjobs("submit", "sweep", "--name", "s", "--yes", "--", "true")
    assert done.returncode == 2
    assert "a sweep needs points" in done.stderr


def test_values_are_given_as_they_are(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where they look like a secret or its mark; the user's own `index` is theirs."""
    values = ["${secret:HOME}", "{{ x }}", "%s", "a'b\n\"c"]
    points = [{"tok1": value, "index": 7 + n, "n": n} for n, value in enumerate(values)]
    Path("points.jsonl").write_text("".join(json.dumps(point) + "\n" for point in points))
    program = """
import json, os, sys
with open(os.environ["HPCJOBS_RESULT"], "w") as file:
    json.dump([sys.argv[1:], json.loads(os.environ["HPCJOBS_POINT"]), os.environ["E"]], file)
"""
    words = ("p.py", "--pad-token", "{{ tok1 }}", "{{ index }}")
    env = ("--set", 'cluster.env={E: "{% if n %}some{% else %}none{% endif %}"}')
    assert submit(program, 1, "--sweep", "points.jsonl", *env, words=words).returncode == 0
    for row, point in zip(rows(place), points, strict=True):
        argv, seen, set_ = json.loads(row["completion"])["result"]
        assert argv == ["--pad-token", point["tok1"], str(point["index"])]
        assert seen == point
        assert set_ == ("some" if point["n"] else "none")


HOSTILE = """
import math, os, shutil, sys
result, n = os.environ["HPCJOBS_RESULT"], int(sys.argv[1])
if n == 0: open(result, "w").write("[" * 100000)
if n == 1: os.mkdir(result)
if n == 2: shutil.rmtree(os.path.dirname(result))
if n == 3: os.mkfifo(result)
if n == 4: open(result, "w").write('{"loss": NaN, "big": 1e400}')
if n == 5 and os.environ["HPCJOBS_TRY"] == "1": print("of try 1", end=""); sys.exit(1)
if n == 6: print("# point of all this")
"""


def test_what_a_program_does_to_its_files_costs_nobody_else(place: Path) -> None:
    how = ("--set", "sweep.n=[0, 1, 2, 3, 4, 5, 6]", "--set", "run.retries=1")
    assert submit(HOSTILE, 1, *how, words=("p.py", "{{ n }}")).returncode == 0
    said = [json.loads(row["completion"], parse_constant=pytest.fail) for row in rows(place)]
    assert [one["exit_code"] for one in said] == [0] * 7
    assert said[4]["result"] == {"loss": "NaN", "big": "1e400"}
    assert (said[5]["last_line"], said[5]["tries"], said[6]["last_line"]) == ("", 2, "# point of all this")


@pytest.mark.parametrize(
    ("more", "words", "said"),
    [
        (("--set", "sweep.lr=[1]"), ("p.py", "{{ rl }}"), "column 'rl'"),
        (("--set", "sweep.lr=[]"), ("p.py", "{{ lr }}"), "sweep.lr is empty"),
        (("--set", 'sweep.a=["x\\0y"]'), ("p.py", "{{ a }}"), "a NUL character"),
        (("--set", "sweep.a=[1]", "--max-samples", "0"), ("p.py", "{{ a }}"), "there is no point"),
        (("--sweep", "none.jsonl"), ("p.py",), "none.jsonl does not exist"),
        (("--set", "sweep.learning-rate=[1]"), ("p.py",), "use letters, digits and _"),
        (("--set", "sweep.lr=[1, 0]"), ("p.py", "{{ 1 // lr }}"), "point 1: integer division"),
        (("--set", "sweep.lr=0.1"), ("p.py",), "--set sweep.lr is a list of values, such as sweep.lr=[0.1, 0.2] (got"),
        (("--set", "sweep.lr=[[1]]"), ("p.py",), "--set sweep.lr: each value is a text, a number, true, false or null"),
        (("--sweep", ""), ("p.py",), "--sweep: sweep: is a list of values for each name, such as {lr: [0.1, 0.2]}, or"),
        (
            ("--sweep", "p.jsonl", "--set", "sweep.lr=[1]"),
            ("p.py",),
            "--sweep: sweep is the file 'p.jsonl', and --set sweep.lr sets keys below it: leave one of them out",
        ),
    ],
)  # fmt: skip
def test_what_no_point_could_run_is_refused_when_planning(
    place: Path, more: tuple[str, ...], words: tuple[str, ...], said: str
) -> None:
    done = submit("", 1, *more, words=words)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (place / "runs").exists()


def test_a_point_that_prints_and_writes_what_it_likes_is_kept(place: Path) -> None:
    program = """
import os, sys
sys.stdout.buffer.write(b"\\xff\\x1b[31m" + b"x" * 10000 + b"\\n\\n")
open(os.environ["HPCJOBS_RESULT"], "w").write("{not json" if sys.argv[1] == "0" else "[1e400, null]")
"""
    assert submit(program, 1, "--set", "sweep.n=[0, 1]", words=("p.py", "{{ n }}")).returncode == 0
    said = [json.loads(row["completion"]) for row in rows(place)]
    assert said[0]["result"].startswith("not JSON")
    assert len(said[0]["last_line"]) <= 300
    assert [row["error"] for row in rows(place)] == [None, None]
