"""Job: a call of a function that was submitted, with the methods of submitit's Job."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from submitit.core import core, utils

from hpcjobs.commands.cancel import cancel
from hpcjobs.errors import HpcJobsError, UsageError
from hpcjobs.functions.watch import RunWatch, watch_of
from hpcjobs.launch import slurm
from hpcjobs.run_folder.calls import end_call, outcome_of
from hpcjobs.run_folder.heartbeat import read_heartbeats
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity, children_of
from hpcjobs.run_folder.run_state import RunState
from hpcjobs.run_folder.submission import read_launches

R = TypeVar("R", covariant=True)
# Between two looks for a result: at first, and at most (seconds).
_SOON, _LATER = 0.02, 1.0
# How much of the end of its output an error shows (bytes).
_TAIL = 4096
# Outcomes, and states of a run, as Slurm's states.
_OUTCOMES = {"success": "COMPLETED", "error": "FAILED", "uncompleted": "FAILED", "cancelled": "CANCELLED"}
_RUNS = {RunState.CANCELLED: "CANCELLED", RunState.UNKNOWN: "UNKNOWN"}


class Job(core.Job[R]):  # type: ignore[misc]
    """A submitted call: `result()`, `exception()`, `done()`, `wait()`, `cancel()`, `state`, `stdout()`, `stderr()`.

    `Job(folder, job_id)` finds one that another process has submitted to an executor of this folder. `run` is the run
    folder, for `hpcjobs status`, `logs` and `resume`. Raises a UsageError if there is no such job.
    """

    def __init__(self, folder: Path | str, job_id: str, tasks: Sequence[int] = (0,)) -> None:
        self._root = _run_of(Path(folder).expanduser().absolute(), job_id.partition("_")[0])
        base, several, index = job_id.partition("_")
        count = len(self._watch.calls)
        if count > 1 and not (index.isdecimal() and str(int(index)) == index and int(index) < count):
            which = f"{base}_0 to {base}_{count - 1}"
            raise UsageError(f"no job {job_id} in {folder}: of its {count} calls give one, {which}")
        if count == 1 and several:
            raise UsageError(f"no job {job_id} in {folder}: its only call is {base}")
        super().__init__(self._root / "jobs", job_id, tasks)

    @property
    def run(self) -> Path:
        """The run folder."""
        return self._root

    @property
    def _watch(self) -> RunWatch:
        return watch_of(RunPaths(self._root))

    @property
    def _index(self) -> int:
        return int(self.job_id.partition("_")[2] or 0)

    def _register_in_watcher(self) -> None:
        """Not with submitit's watcher, which asks sacct for each job."""

    def submission(self) -> utils.DelayedSubmission:
        """The call as it was submitted: `function`, `args` and `kwargs`."""
        return self._watch.calls.submitted(self._index)

    def done(self, force_check: bool = False) -> bool:
        """Whether it has ended: it has a result or an error, or nothing that could give it one is left."""
        if self._sub_jobs:
            return all(job.done(force_check) for job in self._sub_jobs)
        return self._has_ended() or self._watch.is_over(force_check)

    def _has_ended(self) -> bool:
        return self._watch.has_ended(self.paths.result_pickle.name)

    def wait(self) -> None:
        """Wait until it is done."""
        pause = _SOON
        while not self.done():
            time.sleep(pause)
            pause = min(pause * 1.5, _LATER)

    def results(self) -> list[R]:
        """The results of all tasks. Raises what `exception` gives: of several tasks, that of one that has failed."""
        self.wait()
        if self._sub_jobs and (error := self.exception()):
            raise error
        found: list[R] = super().results()
        return found

    def exception(self) -> utils.UncompletedJobError | None:
        """Its error, once it is done: a FailedJobError with the traceback, or an UncompletedJobError; None if it has a
        result.

        Of several tasks, that of the first that has failed: others may only have been ended with it.
        """
        if not self._sub_jobs:
            found: utils.UncompletedJobError | None = super().exception()
            return found
        errors = [error for job in self._sub_jobs if (error := job.exception())]
        failed = [error for error in errors if isinstance(error, utils.FailedJobError)]
        return (failed or errors or [None])[0]

    def _get_outcome_and_result(self) -> tuple[str, Any]:
        """`(success, value)` or `(error, traceback)`. Raises an UncompletedJobError where there is neither."""
        path = self.paths.result_pickle
        if not self._has_ended():
            raise utils.UncompletedJobError(self._why_not())
        try:
            outcome, value = utils.pickle_load(path)
        except FileNotFoundError:  # it is run again since
            self._watch.forget(path.name)
            self.wait()
            return self._get_outcome_and_result()
        if outcome not in ("success", "error"):
            raise utils.UncompletedJobError(f"Job {self.job_id} (task: {self.task_id}): {value}{self._tail()}")
        return outcome, value

    def _why_not(self) -> str:
        status = self._watch.status(force=True)
        lines = [f"Job {self.job_id} (task: {self.task_id}) has not produced any output (state: {self.state})"]
        if status:
            lines += [f"its run {status.run} is {status.state}", *([status.first_error] if status.first_error else [])]
            lines += status.notes
        return "\n".join(lines) + self._tail() + f"\nNext: hpcjobs status {self._root}; hpcjobs resume {self._root}"

    def _tail(self) -> str:
        for path in (self.paths.stderr, self.paths.stdout):
            with contextlib.suppress(OSError), path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - _TAIL))
                if text := file.read().decode(errors="replace").strip():
                    return f"\nThe end of {path}:\n{'-' * 40}\n{text}"
        return ""

    @property
    def state(self) -> str:
        """PENDING, RUNNING, COMPLETED, FAILED, CANCELLED or UNKNOWN."""
        if self._sub_jobs:
            states = [job.state for job in self._sub_jobs]
            return next((state for state in states if state != "COMPLETED"), "COMPLETED")
        if self._has_ended():
            return _OUTCOMES.get(outcome_of(self.paths.result_pickle), "FAILED")
        status = self._watch.status()
        if status is None or status.state in _RUNS:
            return _RUNS[status.state] if status else "UNKNOWN"
        if status.over and not status.going:
            return "FAILED"
        return "RUNNING" if self.paths.stdout.exists() else "PENDING"

    def get_info(self, mode: str = "force") -> dict[str, str]:
        """Its state and run, and the nodes of its run's jobs."""
        status = self._watch.status(force=mode == "force")
        nodes = ",".join(one.nodes for one in status.jobs.values() if one.nodes) if status else ""
        return {"JobID": self.job_id, "State": self.state, "NodeList": nodes, "Run": str(self._root)}

    def cancel(self, check: bool = True) -> None:
        """End it. Of a map, this call alone: one that runs is ended within a second or two.

        `check`: raise an HpcJobsError where Slurm refuses.
        """
        count = len(self._watch.calls)
        if count > 1:
            path = self.paths.result_pickle
            end_call(path, "cancelled", "was cancelled")
            if self._watch.note_ended(path.name) < count:
                return
        with contextlib.nullcontext() if check else contextlib.suppress(HpcJobsError):
            cancel(RunPaths(self._root))
            self._watch.status(force=True)

    def _interrupt(self, timeout: bool = False) -> None:
        """Warn the workers of its run, as before a preemption, to see whether it goes on (submitit's documentation)."""
        paths = RunPaths(self._root)
        last = read_launches(paths)[-1]
        if last.executor == "slurm":
            return slurm.send(last.work_jobs, "USR2")
        for vitals in read_heartbeats(paths.heartbeats):
            rank = Identity(**vitals.identity)
            if last.owns(vitals.attempt) and not rank.is_dead():
                for pid in (rank.pid, *children_of(rank.pid)):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGUSR2)
        return None

    def stdout(self) -> str | None:
        """What it has printed; None if it has not begun."""
        return self._output("stdout")

    def stderr(self) -> str | None:
        """What it has printed to stderr; None if it has not begun, or prints that to stdout."""
        return None if self._watch.facts.stderr_to_stdout else self._output("stderr")

    def _output(self, name: str) -> str | None:
        if self._sub_jobs:
            texts = [text for job in self._sub_jobs if (text := job._get_logs_string(name)) is not None]
            return "\n".join(texts) if texts else None
        return self._get_logs_string(name)

    def _get_logs_string(self, name: str) -> str | None:
        path: Path = getattr(self.paths, name)
        try:
            return path.read_text(errors="replace")
        except FileNotFoundError:  # a file without output is removed
            return "" if self._has_ended() else None

    def __del__(self) -> None:
        if self.__dict__.get("_cancel_at_deletion"):
            with contextlib.suppress(Exception):
                if not self.done():
                    self.cancel(check=False)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


@functools.lru_cache(maxsize=1024)
def _run_of(folder: Path, base: str) -> Path:
    """The run in `folder`, or whose jobs `folder` holds, that has job `base`."""
    own = folder.parent
    if folder.name == "jobs" and RunPaths(own).call_facts.is_file():
        return own
    top: Path = utils.JobPaths.get_first_id_independent_folder(folder)
    runs = sorted(path.parent.parent for path in top.glob("*/inputs/calls.json"))
    for root in reversed(runs):
        paths = RunPaths(root)
        if root.name.endswith(f"-{base}") or any(base in one.work_jobs for one in read_launches(paths)[:1]):
            return root
    raise UsageError(f"no job {base} in {top}: {len(runs)} runs of hpcjobs.Executor are there")
