"""A user's program under the local executor: how its ranks meet, what they are told, and what their end means."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.cli.show_run import status_line
from hpcjobs.commands.status import read_status
from hpcjobs.run_folder.heartbeat import read_heartbeats
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import children_of, processes_with
from hpcjobs.run_folder.run_state import RunState
from hpcjobs.run_folder.submission import read_launches
from hpcjobs.worker.script import how_ended, oom_kills
from tests.runs import cancelled_at_end, hpcjobs, wait_for


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("HPCJOBS_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    with cancelled_at_end(RunPaths(tmp_path / "runs" / "s")):
        pass


def submit(program: str, ranks: int, *more: str, wait: bool = True, words: tuple[str, ...] = ("p.py",)) -> Any:
    Path("p.py").write_text(program)
    how = ("--executor", "local", "--ntasks-per-node", str(ranks), "--gpus", "0", "--name", "s", "--yes")
    fast = ("--set", "run.heartbeat=0.2", "--set", "cluster.lost_after=3.0")
    return hpcjobs("submit", "script", *how, *fast, *(("--wait",) if wait else ()), *more, "--", *words)


def said(place: Path) -> str:
    return "".join(path.read_text() for path in sorted((place / "runs/s/logs").glob("*_log.out")))


ENVIRONMENT = """
import json, os, socket
rank = os.environ["RANK"]
where = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
def bound(*options):
    with socket.socket() as one:
        for option in options:
            one.setsockopt(socket.SOL_SOCKET, option, 1)
        try:
            one.bind(where)
            one.listen()
        except OSError:
            return False
        return True
names = "RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE GROUP_RANK ROLE_RANK TORCHELASTIC_RESTART_COUNT".split()
free, asked = (bound(), bound(socket.SO_REUSEADDR)) if rank == "0" else (False, True)
agent = os.environ["TORCHELASTIC_USE_AGENT_STORE"]
open(f"env-{rank}", "w").write(json.dumps([[os.environ[name] for name in names], free, asked, agent]))
"""


@pytest.mark.parametrize("ranks", [1, 2])
def test_each_rank_has_what_torchrun_gives_and_the_port_is_reserved(place: Path, ranks: int) -> None:
    """Case 54. Who asks for any free port does not get it; who asks for it as torch's store does, can."""
    assert submit(ENVIRONMENT, ranks).returncode == 0
    for rank in range(ranks):
        values, free, asked, agent = json.loads(Path(f"env-{rank}").read_text())
        assert values == [str(rank), str(ranks), str(rank), str(ranks), "0", str(rank), "0"]
        assert (free, asked, agent) == (False, True, "False")


DIES = """
import os, signal, sys, time
if os.environ["RANK"] == "1": {how}
time.sleep({seconds}); print("slept to the end", flush=True)
"""


@pytest.mark.parametrize(
    ("how", "why"), [("os.kill(os.getpid(), signal.SIGSEGV)", "signal SIGSEGV"), ("sys.exit(7)", "exit code 7")]
)
def test_where_one_rank_dies_the_others_end(place: Path, how: str, why: str) -> None:
    """Case 26."""
    began = time.monotonic()
    done = submit(DIES.format(how=how, seconds=100), 3)
    assert time.monotonic() - began < 60
    assert done.returncode == 1
    assert f"p.py ended with {why} on rank 1" in done.stderr, "the cause, not what came of it"
    assert "slept to the end" not in said(place)
    assert said(place).count(f"rank 1 on {os.uname().nodename} (ended with {why}) was lost") == 2


def test_where_ranks_do_not_need_each_other_they_go_on(place: Path) -> None:
    how = ("--set", "cluster.on_rank_failure=go_on")
    assert submit(DIES.format(how="sys.exit(7)", seconds=4), 2, *how).returncode == 1
    assert "slept to the end" in said(place)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_rank_that_is_killed_or_stopped_takes_its_program_and_the_others_with_it(
    place: Path, number: signal.Signals
) -> None:
    lease = "60" if number == signal.SIGKILL else "3"  # its guard tells of its death, not its silence
    how = ("--set", f"cluster.lost_after={lease}")
    assert submit("import time; time.sleep(100)", 2, *how, wait=False).returncode == 0
    paths = RunPaths(place / "runs/s")
    programs = wait_for(lambda: programs_of(paths, 2), "the programs")
    os.kill(read_heartbeats(paths.heartbeats)[1].identity["pid"], number)
    wait_for(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in programs), "the end of both programs", 40)
    wait_for(lambda: read_status(paths).over, "the end of the run", 40)
    assert read_status(paths).state == "failed"


def programs_of(paths: RunPaths, count: int) -> list[int] | None:
    """The pids of all ranks' programs, once there are so many."""
    ranks = [vitals.identity["pid"] for vitals in read_heartbeats(paths.heartbeats) if vitals.state == "working"]
    found = [pid for rank in ranks for pid in children_of(rank)]
    running = [pid for pid in found if b"p.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return running if len(running) == count else None


SAVES = """
import os, signal, sys, time
file = f"saved-{os.environ['RANK']}"
step = int(open(file).read()) if os.path.exists(file) else 0
print("begins at", step, flush=True)
def save(number, frame):
    with open("got", "a") as got: got.write(signal.Signals(number).name + "\\n")
    open(file, "w").write(str(step)); sys.exit(0)
signal.signal(signal.SIGUSR1, save)
open(f"ready-{os.environ['RANK']}", "w").close()
while step < 40:
    step += 1; time.sleep(0.1)
print("done", step, flush=True)
"""


def test_cancel_warns_and_resume_starts_the_program_again_where_it_saved(place: Path) -> None:
    """Case 27: warned once, `cancelled` and not failed, and gone on in the same folder."""
    assert submit(SAVES, 2, "--set", "cluster.warn={signal: USR1, before: 30}", wait=False).returncode == 0
    wait_for(lambda: all(Path(f"ready-{rank}").exists() for rank in range(2)), "both programs")
    began = time.monotonic()
    assert hpcjobs("cancel", "s").returncode == 0
    assert time.monotonic() - began < 20, "cancel waits for programs that have ended"
    assert Path("got").read_text() == "SIGUSR1\n" * 2
    paths = RunPaths(place / "runs/s")
    assert read_status(paths).state == "cancelled"
    assert hpcjobs("resume", "s", "--wait").returncode == 0
    assert "done 40" in said(place)
    assert int(Path("saved-0").read_text()) > 0
    assert f"begins at {Path('saved-0').read_text()}" in said(place)
    assert "is complete: nothing to resume" in hpcjobs("resume", "s").stderr


def test_one_rank_that_asks_for_another_start_takes_the_others_along(place: Path) -> None:
    program = """
import os, sys, time
again = os.path.exists("first")
if os.environ["RANK"] == "1" and not again:
    open("first", "w").close()
    sys.exit(75)
time.sleep(0 if again else 100)
"""
    assert submit(program, 2, "--set", "cluster.warn={}").returncode in (0, 3)
    paths = RunPaths(place / "runs/s")
    wait_for(lambda: not read_status(paths).going, "the end", 60)
    assert read_status(paths).state == "complete"


def test_without_a_wish_to_be_warned_exit_code_75_is_a_failure(place: Path) -> None:
    assert submit(DIES.format(how="sys.exit(75)", seconds=100), 2).returncode == 1


def test_what_a_program_has_left_running_ends_with_the_run(place: Path) -> None:
    """As at the end of a Slurm step: a daemon, and the foreground child of a shell that was ended."""
    Path("x.sh").write_text("#!/bin/bash\nsleep 1000 &\n[ $RANK = 1 ] && exit 7\nsleep 1000\n")
    began = time.monotonic()
    assert submit("", 2, words=("bash", "x.sh")).returncode == 1
    assert time.monotonic() - began < 60
    assert not [one for one in processes_with("HPCJOBS_RUNS", str(place / "runs")) if sleeps(one.pid)]
    assert submit("import subprocess; subprocess.Popen(['sleep', '1000'])", 1, "--name", "t").returncode == 0
    assert not [one for one in processes_with("HPCJOBS_RUNS", str(place / "runs")) if sleeps(one.pid)]


def sleeps(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text() == "sleep\n"
    except OSError:
        return False


WARNED = """
import os, signal, sys, time
def end(number, frame):
    {how}
signal.signal(signal.{name}, end)
open(f"ready-{{os.environ['RANK']}}", "w").close()
time.sleep(100)
"""


@pytest.mark.parametrize(
    ("name", "how", "state"),
    [
        ("SIGUSR1", "sys.exit(0)", "cancelled"), ("SIGTERM", "time.sleep(12); open('saved', 'w').close(); sys.exit(0)",
        "cancelled"),
    ],
)  # fmt: skip
def test_each_signal_gives_the_time_that_was_asked_for(place: Path, name: str, how: str, state: str) -> None:
    warn = f"cluster.warn={{signal: {name}, before: 40}}"
    assert submit(WARNED.format(how=how, name=name), 1, "--set", warn, wait=False).returncode == 0
    wait_for(lambda: Path("ready-0").exists(), "the program")
    assert hpcjobs("cancel", "s").returncode == 0
    assert read_status(RunPaths(place / "runs/s")).state == state
    assert Path("saved").exists() == ("saved" in how)


@pytest.mark.parametrize("how", ["sys.exit(3)", "os.kill(os.getpid(), signal.SIGSEGV)", "os._exit(255)"])
def test_what_fails_after_a_warning_has_failed(place: Path, how: str) -> None:
    warn = "cluster.warn={signal: USR1, before: 40}"
    assert submit(WARNED.format(how=how, name="SIGUSR1"), 1, "--set", warn, wait=False).returncode == 0
    wait_for(lambda: Path("ready-0").exists(), "the program")
    paths = RunPaths(place / "runs/s")
    rank = read_heartbeats(paths.heartbeats)[0].identity["pid"]
    for pid in (rank, *children_of(rank)):
        os.kill(pid, signal.SIGUSR1)
    wait_for(lambda: not read_status(paths).going, "the end", 60)
    assert (read_status(paths).state, len(read_launches(paths))) == ("failed", 1)


def test_a_real_time_signal_has_a_number(place: Path) -> None:
    done = submit("import os; os.kill(os.getpid(), 35)", 1)
    assert "ended with signal 35 on rank 0" in done.stderr


AGAIN = """
import os, sys
count = len([name for name in os.listdir() if name.startswith("start-")])
open(f"start-{count}", "w").write(os.environ["HPCJOBS_ATTEMPT"])
sys.exit(75 if count < TIMES else 0)
"""


@pytest.mark.parametrize(("times", "starts", "state"), [(2, 3, "complete"), (9, 3, "incomplete")])
def test_a_program_that_asks_for_it_is_started_again(place: Path, times: int, starts: int, state: str) -> None:
    """Exit code 75, EX_TEMPFAIL: as often in a row as run.auto_resume says."""
    how = ("--set", "cluster.warn={}", "--set", "run.auto_resume=2")
    submit(AGAIN.replace("TIMES", str(times)), 1, *how)
    paths = RunPaths(place / "runs/s")
    wait_for(lambda: not read_status(paths).going, "the end", 60)
    status = read_status(paths)
    assert status.state == state
    names = [path.read_text() for path in place.glob("start-*")]
    assert len(set(names)) == len(names) == starts
    assert state == "complete" or "asks to be started again (exit code 75)" in " ".join(status.notes)


@pytest.mark.parametrize(
    ("words", "text"), [(("bash", "x.sh"), "from bash 0"), (("./x.sh",), "from bash 0"), (("printenv", "RANK"), "0")]
)
def test_any_command_runs(place: Path, words: tuple[str, ...], text: str) -> None:
    Path("x.sh").write_text("#!/bin/bash\necho from bash $RANK\n")
    os.chmod("x.sh", 0o755)
    done = submit("", 1, words=words)
    assert done.returncode == 0, done.stderr
    assert text in said(place)


@pytest.mark.parametrize(
    ("words", "program", "cause"),
    [
        (("p.py",), "input('which? ')", "exit code 1 on rank 0 ({host}): EOFError: EOF when reading a line"),
        (("-m", "json.nothing"), "", "exit code 1 on rank 0 ({host}): {python}: No module named json.nothing"),
        (("bash", "p.py"), "no-such-command", "exit code 127 on rank 0 ({host}): p.py: line 1: no-such-command"),
        (("./x",), "", "./x cannot be started on {host}: Exec format error"),
    ],
)  # fmt: skip
def test_the_cause_of_what_only_shows_on_the_node_stands_in_status(
    place: Path, words: tuple[str, ...], program: str, cause: str
) -> None:
    """It reads what nobody types, is a module that is not there, calls what is not there, is for another machine."""
    Path("x").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(57))
    os.chmod("x", 0o755)
    done = submit(program, 1, words=words)
    assert done.returncode == 1
    told = cause.format(host=os.uname().nodename, python=sys.executable)
    assert told in done.stderr
    assert told in (read_status(RunPaths(place / "runs/s")).first_error or "")


def test_what_can_be_known_before_is_a_usage_error_and_leaves_nothing(place: Path) -> None:
    done = submit("", 1, words=("--nodes", "2", "p.py"))
    assert (done.returncode, "--nodes stands behind --" in done.stderr) == (2, True)
    assert not (place / "runs").exists()


OPEN = """
import os, stat, sys
opened = {fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 2 and os.path.exists(f"/proc/self/fd/{fd}")}
print("open:", sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in opened), flush=True)
"""


def test_a_program_has_no_file_of_its_rank_open(place: Path) -> None:
    assert submit(OPEN, 1).returncode == 0
    assert "open: []" in said(place)


TRAINS = """
import json, os, signal, sys, time
rank, again = os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]
start = {name: os.environ[name] for name in ("HPCJOBS_ATTEMPT", "MASTER_PORT", "TORCHELASTIC_MAX_RESTARTS")}
open(f"start-{again}-{rank}", "w").write(json.dumps(start))
file = f"step-{rank}"
step = int(open(file).read()) if os.path.exists(file) else 0
while step < 4:
    step += 1
    open(file, "w").write(str(step))
    if rank == "1" and step == 2 + int(again) and int(again) < FAILS:
        HOW
    time.sleep(0.2)
    if rank == "0" and step == 2 + int(again) and int(again) < FAILS:
        time.sleep(100)
open(f"done-{rank}", "w").close()
"""


def trains(fails: int, how: str = "sys.exit(7)") -> str:
    return TRAINS.replace("FAILS", str(fails)).replace("HOW", how)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("sys.exit(7)", "ended with exit code 7"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "ended with signal SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGSTOP)", "p.py was ended on rank 1: stopped for"),
    ],
)
def test_a_program_is_started_again_as_torchrun_does_it(place: Path, how: str, why: str) -> None:
    """All ranks with one new attempt and a new port; each goes on from what it has saved."""
    submit(trains(1, how), 2, "--restarts", "3", wait=False)
    paths = RunPaths(place / "runs/s")
    wait_for(lambda: not read_status(paths).going, "the end", 180)
    starts = [[json.loads(Path(f"start-{again}-{rank}").read_text()) for rank in range(2)] for again in range(2)]
    assert all(one == other for one, other in starts), "the ranks agree"
    assert starts[0][0]["HPCJOBS_ATTEMPT"] != starts[1][0]["HPCJOBS_ATTEMPT"]
    assert starts[0][0]["MASTER_PORT"] != starts[1][0]["MASTER_PORT"]
    assert {one["TORCHELASTIC_MAX_RESTARTS"] for one, _ in starts} == {"3"}
    assert sorted(path.name for path in place.glob("done-*")) == ["done-0", "done-1"]
    status = read_status(paths)
    assert (status.state, status.first_error) == ("complete", None)
    found = [(one.rank, one.restart, one.again, one.why.startswith(why)) for one in status.attempts]
    assert found == [(1, 0, True, True)]
    cause = f"rank 1 on {os.uname().nodename} ({why}"
    assert cause in hpcjobs("status", "s").stdout
    assert f"restart 1 of 3 after {cause}" in status_line(dataclasses.replace(status, state=RunState.RUNNING))


def test_where_the_restarts_are_used_up_the_last_cause_is_named(place: Path) -> None:
    submit(trains(9, "sys.exit(3 + int(again))"), 2, "--restarts", "1", wait=False)
    paths = RunPaths(place / "runs/s")
    wait_for(lambda: not read_status(paths).going, "the end", 180)
    status = read_status(paths)
    assert status.state == "failed"
    assert "p.py ended with exit code 4 on rank 1" in (status.first_error or "")
    told = [note.partition(": ")[2] for note in status.notes if note.startswith("attempt")]
    assert told == ["started again: restart 1 of 1", "restart 1 of 1 was the last"]


def test_what_was_cancelled_does_not_start_again(place: Path) -> None:
    """Neither by its end after a warning, nor by that of the last."""
    program = WARNED.format(how="sys.exit(3)", name="SIGUSR1")
    how = ("--restarts", "5", "--set", "cluster.warn={signal: USR1, before: 20}")
    assert submit(program, 2, *how, wait=False).returncode == 0
    wait_for(lambda: all(Path(f"ready-{rank}").exists() for rank in range(2)), "both programs")
    assert hpcjobs("cancel", "s").returncode == 0
    paths = RunPaths(place / "runs/s")
    assert [one.then for one in read_status(paths).attempts] in ([], ["cancelled"])
    assert len({one.attempt for one in read_heartbeats(paths.heartbeats)}) == 1


def test_restarts_are_for_programs_whose_ranks_need_each_other(place: Path) -> None:
    said = submit("", 2, "--restarts", "1", "--set", "cluster.on_rank_failure=go_on").stderr
    assert "cluster.restarts starts all ranks again" in said
    assert "set cluster.restarts" in submit("", 2, "--nodes", "2-3").stderr
    assert "--nodes 3-2: a number of nodes" in submit("", 2, "--nodes", "3-2").stderr
    said = submit("", 2, "--restarts", "1", "--set", "sweep.n=[1]").stderr
    assert "cluster.restarts is for submit script; a sweep goes on by run.retries" in said


def test_a_kill_for_lack_of_memory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel counts them. Where the count is the same, or the signal another one, nothing is said of memory."""
    monkeypatch.setattr("hpcjobs.worker.script.VMSTAT", tmp_path / "vmstat")
    assert how_ended(-9, oom_kills()) == "signal SIGKILL", "an old kernel counts none"
    (tmp_path / "vmstat").write_text("nr_free_pages 1\noom_kill 3\n")
    assert how_ended(-9, 3) == "signal SIGKILL"
    assert how_ended(-9, 2).startswith("signal SIGKILL: out of memory")
    assert how_ended(137, 2).startswith("exit code 137: out of memory")
    assert how_ended(-11, 2) == "signal SIGSEGV"


COPY = """
import os, sys
index, size = os.environ["HPCJOBS_INDEX"], os.environ["HPCJOBS_ARRAY_SIZE"]
file = f"copy-{index}-{os.environ['RANK']}"
first = not os.path.exists(file)
open(file, "a").write(f"{size} {os.environ['WORLD_SIZE']}\\n")
sys.exit(75 if index == "2" and first else 4 if index == "1" and not os.path.exists("mended") else 0)
"""


def test_copies_in_an_array_fail_alone_and_resume_starts_those(place: Path) -> None:
    """What has asked for it was started again by itself, what has failed was not."""
    submit(COPY, 1, "--array", "3", "--set", "cluster.warn={}", wait=False)
    paths = RunPaths(place / "runs/s")
    wait_for(lambda: not read_status(paths).going, "the end", 180)
    status = read_status(paths)
    assert (status.state, [one.state for one in status.copies]) == ("failed", ["complete", "failed", "complete"])
    assert "p.py ended with exit code 4 on rank 0" in (status.copies[1].why or "")
    Path("mended").touch()
    assert "--array 4: s has 3 copies" in hpcjobs("resume", "s", "--array", "4").stderr
    assert hpcjobs("resume", "s").returncode == 0
    wait_for(lambda: not read_status(paths).going, "the end", 180)
    assert read_status(paths).state == "complete"
    assert {path.name: path.read_text() for path in place.glob("copy-*")} == {
        "copy-0-0": "3 1\n", "copy-1-0": "3 1\n3 1\n", "copy-2-0": "3 1\n3 1\n",
    }  # fmt: skip
    assert [one.indexes for one in read_launches(paths)] == [(0, 1, 2), (2,), (1,)]
    assert "3 of 3 copies ended well" in (hpcjobs("report", "s"), paths.report.read_text())[1]
