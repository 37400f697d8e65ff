"""hpcjobs.Executor on this machine: each call has its result once, whatever dies, or an error that says why not."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from submitit.core.utils import FailedJobError, UncompletedJobError

import hpcjobs
from hpcjobs.commands.cancel import cancel
from hpcjobs.commands.status import read_status
from hpcjobs.errors import UsageError
from hpcjobs.run_folder.heartbeat import Vitals, read_heartbeats
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import children_of, processes_with
from tests.runs import hpcjobs as command
from tests.runs import wait_for

# Of a machine that is busy with other things (seconds).
PATIENCE = 240.0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "jobs"
    for facts in (tmp_path / "jobs").glob("*/inputs/calls.json"):
        cancel(RunPaths(facts.parent.parent))


def local(folder: Path, **parameters: Any) -> hpcjobs.Executor:
    return hpcjobs.Executor(folder, "local", **parameters)


CLIENT = """
import os, sys, time
import hpcjobs

def slow(number):
    with open("calls.txt", "a") as all_calls:
        all_calls.write(f"{number} ")
    time.sleep(0.1)
    return {"number": number, "square": number ** 2}

executor = hpcjobs.Executor("jobs", "local", local_array_parallelism=3)
print(executor.map_array(slow, range(60))[0].job_id, flush=True)
time.sleep(600)
"""


def test_a_map_goes_on_whoever_is_killed(folder: Path) -> None:
    """The client, the process of a function, a worker, and a worker's guard: each of 60 calls has its result."""
    client = subprocess.Popen([sys.executable, "-c", CLIENT], stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    base = client.stdout.readline().split("_")[0]
    client.kill()
    client.wait()
    client.stdout.close()
    jobs: list[hpcjobs.Job[dict[str, int]]] = [hpcjobs.Job(folder, f"{base}_{number}") for number in range(60)]
    paths = RunPaths(jobs[0].run)

    def kill(victim: Callable[[Vitals], int], least: int) -> None:
        wait_for(lambda: sum(job.done() for job in jobs) > least, "some results", PATIENCE)
        killed: list[int] = []

        def is_killed() -> bool:  # a worker may not have started its process yet, or have ended since its heartbeat
            for one in reversed(read_heartbeats(paths.heartbeats)):
                with contextlib.suppress(IndexError, FileNotFoundError, ProcessLookupError):
                    if one.ended_at is None and one.state == "working" and not killed:
                        os.kill(pid := victim(one), signal.SIGKILL)
                        killed.append(pid)
            return bool(killed)

        wait_for(is_killed, "one to kill", PATIENCE)

    kill(lambda rank: children_of(rank.identity["pid"])[0], 3)
    kill(lambda rank: int(rank.identity["pid"]), 10)
    kill(lambda rank: int(Path(f"/proc/{rank.identity['pid']}/stat").read_text().split()[3]), 20)
    assert [job.result() for job in jobs] == [{"number": number, "square": number**2} for number in range(60)]
    runs = Path("calls.txt").read_text().split()
    assert set(runs) == {str(number) for number in range(60)}
    assert len(runs) <= 63
    wait_for(lambda: not read_status(paths).going, "the end", PATIENCE)
    assert read_status(paths).state == "complete"
    assert not processes_with("HPCJOBS_PROGRAM", "")


def outcome(kind: str) -> object:
    if kind == "raise":
        raise ValueError("Too bad")
    if kind == "KILL":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "exit":
        os._exit(3)
    if kind == "sys.exit":
        sys.exit(5)
    if kind == "lock":
        return threading.Lock()
    if kind == "generator":
        return (number for number in range(3))
    if kind == "large":
        return bytes(30 << 20)
    if kind == "sleep":
        time.sleep(600)
    if kind == "environment":
        os.environ["LEFT_BEHIND"] = "x"
        os.chdir("/")
    if kind == "next":
        return os.environ.get("LEFT_BEHIND"), os.getcwd(), hpcjobs.JobEnvironment().job_id
    print(kind)
    print("to stderr", file=sys.stderr)
    return kind


class Box:
    """A function's state, which an argument has too."""

    def __init__(self) -> None:
        self.found: list[int] = []

    def fill(self, other: Box) -> bool:
        """Whether it is the same."""
        self.found.append(1)
        return other.found == [1]


class Proxy:
    """Has every attribute, as proxies do."""

    def __getattr__(self, name: str) -> Proxy:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self) -> str:
        return "called"


def forks(how: str) -> str:
    if not (child := os.fork()):
        if how == "exit":
            sys.exit(4)
        if how == "raise":
            raise ValueError("of the child")
        return "the child's"
    return f"{how}: {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}"


def ends_its_child() -> int:
    ready, says = os.pipe()
    if not (child := os.fork()):
        os.write(says, b"x")
        time.sleep(600)
    os.read(ready, 1)  # Python forgets a signal that comes while it forks
    os.kill(child, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def closes_stderr() -> None:
    sys.stderr.close()
    os.close(2)
    raise ValueError("Too bad")


def replaces_stdout() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(1)
    sys.stdout = io.StringIO()


def prints_later() -> None:
    time.sleep(1.5)
    print("printed")


def ends_itself() -> None:
    with open("terms.txt", "a") as terms:
        terms.write("x")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(600)


def leaves_a_thread() -> None:
    def late() -> None:
        time.sleep(2)
        Path("late").touch()

    threading.Thread(target=late).start()


def test_what_a_function_does_to_its_process_stays_its_own(folder: Path) -> None:
    box = Box()
    calls: list[Callable[[], object]] = [
        functools.partial(forks, "exit"), functools.partial(forks, "raise"), functools.partial(forks, "return"),
        ends_its_child, closes_stderr, replaces_stdout, prints_later, ends_itself, Proxy(), leaves_a_thread,
    ]  # fmt: skip
    executor = local(folder, local_array_parallelism=1)
    with executor.batch():
        shared = executor.submit(box.fill, box)
        jobs = executor.submit_array(call for call in calls)
    assert shared.result()
    assert [job.result() for job in jobs[:4]] == ["exit: 4", "raise: 1", "return: 0", -signal.SIGTERM]
    assert "ValueError: of the child" in str(jobs[1].stderr())
    with pytest.raises(FailedJobError, match="ValueError: Too bad"):
        jobs[4].result()
    assert [job.result() for job in jobs[5:7]] == [None, None]
    assert jobs[6].stdout() == "printed\n"
    with pytest.raises(UncompletedJobError, match=r"SIGTERM, which it was sent alone.* in each of 3 tries"):
        jobs[7].result()
    assert Path("terms.txt").read_text() == "xxx"
    assert [job.result() for job in jobs[8:]] == ["called", None]
    wait_for(Path("late").exists, "what the thread does", PATIENCE)
    for name in (jobs[0].job_id.partition("_")[0], jobs[0].job_id.partition("_")[0] + "_10"):
        with pytest.raises(UsageError, match="of its 10 calls give one"):
            hpcjobs.Job(folder, name)


SHARES = """
import hpcjobs
state = {}
def setter():
    state["x"] = 1
def usecb(call):
    call()
    return state
print(hpcjobs.Executor("jobs", "local").submit(usecb, setter).result())
"""


def test_globals_of_a_script_are_shared_by_its_functions(folder: Path) -> None:
    found = subprocess.run([sys.executable, "-c", SHARES], capture_output=True, text=True, check=True)
    assert found.stdout == "{'x': 1}\n"


ENDS: dict[str, tuple[type[Exception], str]] = {
    "raise": (FailedJobError, "ValueError: Too bad"),
    "KILL": (UncompletedJobError, "was ended by signal SIGKILL on .* in each of 3 tries: out of memory"),
    "exit": (UncompletedJobError, "was ended by exit code 3 on"),
    "sys.exit": (UncompletedJobError, r"has ended its process: SystemExit\(5\)"),
    "lock": (FailedJobError, "the result, of type _thread.lock, cannot be pickled"),
    "generator": (FailedJobError, "the result, of type builtins.generator, cannot be pickled"),
    "sleep": (UncompletedJobError, "was cancelled"),
}


def test_every_end_of_a_call_is_told(folder: Path) -> None:
    kinds = ["plain", "sleep", *(kind for kind in ENDS if kind != "sleep"), "environment", "next", "large"]
    jobs = dict(zip(kinds, local(folder, local_array_parallelism=1).map_array(outcome, kinds), strict=True))
    wait_for(lambda: jobs["sleep"].state == "RUNNING", "the call that sleeps", PATIENCE)
    assert (jobs["large"].state, jobs["large"].done(), jobs["large"].stdout()) == ("PENDING", False, None)
    jobs["sleep"].cancel()
    assert jobs["large"].result() == bytes(30 << 20)
    assert jobs["next"].result() == (None, str(Path.cwd()), jobs["next"].job_id)
    assert (jobs["plain"].stdout(), jobs["plain"].stderr()) == ("plain\n", "to stderr\n")
    assert (jobs["next"].stdout(), jobs["plain"].state, jobs["raise"].state) == ("", "COMPLETED", "FAILED")
    for kind, (error, words) in ENDS.items():
        assert type(jobs[kind].exception()) is error
        with pytest.raises(error, match=words):
            jobs[kind].result()
    assert "Too bad" in str(jobs["raise"].stderr())
    job = pickle.loads(pickle.dumps(jobs["plain"]))
    assert (job.result(), job.submission().args, job.submission().function("x")) == ("plain", ("plain",), "x")
    modes = {path.stat().st_mode & 0o777 for path in jobs["plain"].run.rglob("*.pkl")}
    assert modes == {0o600}


def mended(name: str) -> str:
    if not Path("mended").exists():
        raise ValueError(name)
    return name


def test_status_cancel_and_resume_are_those_of_any_run(folder: Path) -> None:
    jobs = local(folder, local_array_parallelism=2, name="mine").map_array(mended, ["a", "b"])
    assert ["ValueError: a" in str(jobs[0].exception()), "ValueError: b" in str(jobs[1].exception())] == [True, True]
    run = str(jobs[0].run)
    wait_for(lambda: not read_status(RunPaths(Path(run))).going, "the end", PATIENCE)
    told = command("status", run)
    assert "of 2 samples 2 have no completion" in told.stdout
    assert Path(run).name.startswith("mine-")
    Path("mended").touch()
    again = command("resume", run, "--errors")
    assert again.returncode == 0, again.stderr
    wait_for(lambda: read_status(RunPaths(Path(run))).state == "complete", "the second start", PATIENCE)
    assert [job.result() for job in jobs] == ["a", "b"]
    job = local(folder).submit(time.sleep, 600)
    wait_for(lambda: job.state == "RUNNING", "the call", PATIENCE)
    job.cancel()
    wait_for(lambda: job.state == "CANCELLED", "the end of the call", PATIENCE)
    with pytest.raises(UncompletedJobError, match=r"has not produced any output \(state: CANCELLED\)"):
        job.result()


class Slacker(hpcjobs.helpers.Checkpointable):  # type: ignore[misc]
    """Works once it was interrupted."""

    def __call__(self, slack: bool = True) -> str:
        if slack:
            time.sleep(600)
        return "worked hard"

    def checkpoint(self, slack: bool = True) -> hpcjobs.helpers.DelayedSubmission:
        """Not again."""
        return hpcjobs.helpers.DelayedSubmission(self, slack=False)


def test_a_call_that_saves_itself_goes_on_after_its_limit_and_others_end(folder: Path) -> None:
    executor = local(folder, local_timeout_min=10 / 60, local_array_parallelism=2)
    slacker, sleeper = executor.submit_array([Slacker(), functools.partial(time.sleep, 600)])
    assert slacker.result() == "worked hard"
    assert "remaining timeouts" in str(slacker.stdout())
    with pytest.raises(FailedJobError, match="timed-out and not checkpointable"):
        sleeper.result()


def task(number: int) -> tuple[int, int, int, str]:
    env = hpcjobs.JobEnvironment()
    if number == 2 and env.global_rank == 1:
        raise ValueError("on purpose")
    if number == 2 and env.global_rank == 2:
        time.sleep(600)
    print("hello from", env.local_rank)
    dist = hpcjobs.helpers.TorchDistributedEnvironment().export()
    return env.global_rank, env.num_tasks, dist.world_size, os.environ["RANK"]


def test_a_call_of_several_tasks(folder: Path) -> None:
    executor = local(folder, tasks_per_node=3, stderr_to_stdout=True)
    good, bad = executor.map_array(task, [1, 2])
    assert good.results() == [(rank, 3, 3, str(rank)) for rank in range(3)]
    assert good.task(2).result() == (2, 3, 3, "2")
    assert [good.task(rank).stdout() for rank in range(3)] == [f"hello from {rank}\n" for rank in range(3)]
    assert good.stderr() is None
    with pytest.raises(FailedJobError, match="ValueError: on purpose"):
        bad.results()
    assert "ended because" not in str(bad.task(1).exception())
    assert type(bad.task(2).exception()) is UncompletedJobError  # it needs the one that failed


def generates() -> Iterator[int]:
    yield 1


async def awaits() -> None:
    """Never run."""


class Generates:
    """Called, it gives values one by one."""

    def __call__(self) -> Iterator[int]:
        yield 1


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (generates, "generates is a generator function, whose values cannot leave its process: return a list"),
        (functools.partial(generates), "is a generator function"),
        (Generates(), "Generates is a generator function"),
        (awaits, r"awaits is an async function: submit one that runs it, such as asyncio.run\(awaits\(\)\)"),
    ],
)
def test_what_has_no_whole_result_is_refused(folder: Path, function: Callable[[], object], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        local(folder).submit(function)
    with pytest.raises(TypeError, match=words):
        local(folder).submit_array([function])


def test_what_cannot_be_submitted_leaves_nothing(folder: Path) -> None:
    lock = threading.Lock()
    with pytest.raises(pickle.PicklingError, match=r"<lambda> cannot be pickled: TypeError: cannot pickle '_thread"):
        local(folder).submit(lambda: lock)
    with pytest.raises(pickle.PicklingError, match="what is given to call 1 of outcome cannot be pickled"):
        local(folder).map_array(outcome, ["plain", lock])
    with pytest.raises(RuntimeError, match="give max_pickle_size_gb a larger value"):
        local(folder, max_pickle_size_gb=1e-6).submit(len, "x" * 10_000)
    with pytest.raises(ValueError, match="its own"):
        local(folder, local_python="/usr/bin/other")
    with pytest.raises(ValueError, match="array_parallelism=0"):
        local(folder, slurm_array_parallelism=0)
    with pytest.raises(NameError, match="Unknown argument 'partitoin' for executor 'slurm'"):
        local(folder, slurm_partitoin="x")
    with pytest.raises(UsageError, match="no job 12 in"):
        hpcjobs.Job(folder, "12")
    assert list(folder.iterdir()) == []


def submits(folder: str) -> tuple[str, int]:
    inner = hpcjobs.Executor(folder, "local").submit(abs, -3)
    return str(inner.run), inner.result()


def test_a_function_that_submits_one(folder: Path) -> None:
    with hpcjobs.helpers.clean_env():
        run, result = local(folder).submit(submits, str(folder / "inner")).result()
    assert (Path(run).parent, result) == (folder / "inner", 3)


def test_batch_and_debug(folder: Path) -> None:
    executor = local(folder, local_array_parallelism=1)
    with executor.batch():
        jobs = [executor.submit(outcome, kind) for kind in ("a", "b")]
        with pytest.raises(AttributeError, match="forbidden within"):
            jobs[0].job_id  # noqa: B018
    assert [job.result() for job in jobs] == ["a", "b"]
    assert len({job.run for job in jobs}) == 1
    debug = hpcjobs.AutoExecutor(folder, "debug", timeout_min=3)
    assert debug.submit(outcome, "c").result() == "c"
