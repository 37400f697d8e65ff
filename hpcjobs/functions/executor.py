"""Executor: submit Python functions, as submitit.AutoExecutor does, to what runs programs and evals here."""

from __future__ import annotations

import functools
import inspect
import random
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import submitit
from submitit.core import core, utils

from hpcjobs.commands.submit import start
from hpcjobs.config import Config
from hpcjobs.config.layers import dotted_layer
from hpcjobs.config.resolve import resolve
from hpcjobs.errors import LaunchError
from hpcjobs.functions import parameters as names
from hpcjobs.functions.job import Job
from hpcjobs.launch import slurm
from hpcjobs.launch.partitions import most_minutes
from hpcjobs.launch.startable import check_startable
from hpcjobs.plan.calls import make_map_plan, make_tasks_plan
from hpcjobs.plan.draft import Draft
from hpcjobs.run_folder.calls import CallFacts, PackedCalls, call_id, name_of

# Starts that a run makes by itself while calls go on, by Slurm's time limits or by preemption.
_STARTS = 1000
# How often the process of a call that was killed is started again.
_RETRIES = 2
_CONSTRUCTED = ("max_num_timeout", "max_pickle_size_gb", "python")
_RANDOM = random.SystemRandom()
_CLUSTERS = ("slurm", "local", "debug")


class Executor(submitit.AutoExecutor):  # type: ignore[misc]
    """Runs functions in Slurm's queue or on this machine: `submit`, `map_array`, `submit_array`, `batch()`.

    As submitit.AutoExecutor, with its parameters, which may be given here as well as to `update_parameters`. `cluster`
    is slurm, local or debug (in this process); by default slurm where it is. Each submission is a run folder in
    `folder`. The calls of an array are shared by `slurm_array_parallelism` workers.
    """

    job_class = Job

    def __init__(self, folder: str | Path, cluster: str | None = None, **kwargs: Any) -> None:
        top = utils.JobPaths.get_first_id_independent_folder(folder)
        own = {name: kwargs.pop(name) for name in list(kwargs) if _is_constructed(name)}
        plain = {name: own.pop(name) for name in list(own) if name in _CONSTRUCTED}
        found = cluster or ("slurm" if slurm.available() else "local")
        if found != "debug":
            own |= {f"{found}_{name}": value for name, value in plain.items()}
        self._parallelism: int | None = None
        super().__init__(top, found, **own)
        python = getattr(self._executor, "python", None)
        if python not in (None, sys.executable, shlex.quote(sys.executable)):
            raise ValueError(f"python={python!r}: hpcjobs.Executor runs functions with its own, {sys.executable}")
        if kwargs:
            self.update_parameters(**kwargs)

    def submit(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> core.Job[Any]:
        """Submit `fn(*args, **kwargs)`. Raises a TypeError for a generator or an async function."""
        _check_plain(fn)
        return super().submit(fn, *args, **kwargs)

    def map_array(self, fn: Callable[..., Any], *iterable: Any) -> list[core.Job[Any]]:
        """Submit `fn` for each element of the iterables, as `map` calls it. Raises as `submit`."""
        _check_plain(fn)
        found: list[core.Job[Any]] = super().map_array(fn, *iterable)
        return found

    def submit_array(self, fns: Iterable[Callable[[], Any]]) -> list[core.Job[Any]]:
        """Submit functions that need no argument. Raises as `submit`."""
        fns = list(fns)
        for fn in fns:
            _check_plain(fn)
        found: list[core.Job[Any]] = super().submit_array(fns)
        return found

    def _internal_update_parameters(self, **kwargs: Any) -> None:
        for name, value in kwargs.items():
            names.check_number(name, value)
        for prefix in _CLUSTERS:
            most = kwargs.pop(f"{prefix}_array_parallelism", None)
            if most is not None:
                if not isinstance(most, int):
                    raise ValueError(f"{prefix}_array_parallelism={most!r}: a whole number, 1 or more")
                self._parallelism = most
        super()._internal_update_parameters(**kwargs)
        if self.cluster != "debug":
            names.cluster_values(self.cluster, self._executor.parameters)

    def _internal_process_submissions(self, delayed_submissions: list[utils.DelayedSubmission]) -> list[core.Job[Any]]:
        if self.cluster == "debug":
            jobs: list[core.Job[Any]] = super()._internal_process_submissions(delayed_submissions)
            return jobs
        if names.tasks_of(self._executor.parameters) > 1:
            return [self._submit_tasks(one) for one in delayed_submissions]
        return self._submit_map(delayed_submissions)

    def _submit_map(self, submissions: list[utils.DelayedSubmission]) -> list[core.Job[Any]]:
        packed, facts = self._packed(submissions), self._facts()
        title = name_of(submissions[0].function)
        config, folder = self._config(len(packed)), self._folder(facts)
        job = self._start(make_map_plan(config, packed, facts, title, folder), facts)
        return [Job(folder / "jobs", call_id(job, number, len(packed))) for number in range(len(packed))]

    def _submit_tasks(self, submission: utils.DelayedSubmission) -> core.Job[Any]:
        packed, facts = self._packed([submission]), self._facts()
        config, folder = self._config(None), self._folder(facts)
        job = self._start(make_tasks_plan(config, packed, facts, folder), facts)
        return Job(folder / "jobs", job, range(names.tasks_of(self._executor.parameters)))

    def _packed(self, submissions: list[utils.DelayedSubmission]) -> PackedCalls:
        packed, most = PackedCalls(submissions), self._executor.max_pickle_size_gb
        if packed.size > most * 1024**3:
            raise RuntimeError(
                f"Submitting {packed.size / 1024**3:.2f} > {most}GB of objects (function and arguments) through "
                "pickle: if this is intended, give max_pickle_size_gb a larger value"
            )
        return packed

    def _facts(self) -> CallFacts:
        given, cluster = self._executor.parameters, self.cluster
        seconds = 60 * names.minutes_of(cluster, given)
        own = time.strftime("%Y%m%d%H%M%S") + f"{_RANDOM.randrange(10**6):06}"
        return CallFacts(
            job_id=None if cluster == "slurm" else own, seconds=seconds,
            warning=min(names.warning_of(cluster, given), seconds / 2),
            timeouts=self._executor.max_num_timeout, stderr_to_stdout=bool(given.get("stderr_to_stdout")),
            path=[folder for folder in sys.path if isinstance(folder, str)],
        )  # fmt: skip

    def _folder(self, facts: CallFacts) -> Path:
        given = self._executor.parameters
        name = str(given.get("job_name") or given.get("name") or "")
        name = re.sub(r"[^A-Za-z0-9._-]+|\.\.+", "-", name).lstrip("._-")
        own = facts.job_id or time.strftime("%Y%m%d-%H%M%S") + f"-{_RANDOM.randrange(16**6):06x}"
        return Path(self.folder) / f"{name[:80] or 'submitit'}-{own}"

    def _config(self, calls: int | None) -> Config:
        """The config of a run of so many calls; None: of one call of several tasks."""
        given, local = self._executor.parameters, self.cluster == "local"
        values = names.cluster_values(self.cluster, given) | {
            "cluster.executor": self.cluster, "cluster.warn.signal": "USR2", "run.auto_resume": _STARTS,
            "cluster.warn.before": max(1, int(names.warning_of(self.cluster, given))),
        }  # fmt: skip
        minutes, gpus = names.minutes_of(self.cluster, given), names.gpus_of(given)
        if calls is None:
            per_node = names.tasks_of(given) if local else given.get("ntasks_per_node") or 1
            values |= {"cluster.time": max(1, int(minutes)), "cluster.ntasks_per_node": per_node}
            values |= {"cluster.gpus_per_node": gpus} if gpus else {}
        elif local:
            workers = names.local_workers(given, calls, self._parallelism)
            values |= {"cluster.ntasks_per_node": workers, "cluster.time": max(1, int(minutes))}
            values |= {"cluster.gpus_per_node": gpus * workers, "model.gpus_per_rank": gpus} if gpus else {}
        else:
            workers = min(calls, self._parallelism or names.PARALLELISM)
            time_limit = names.worker_minutes(minutes, calls, workers, lambda: most_minutes(given.get("partition")))
            values |= {"cluster.time": time_limit, "cluster.ntasks_per_node": None}
            values |= {"cluster.array": workers} if workers > 1 else {}
            values |= {"model.gpus_per_rank": gpus} if gpus else {}
        if calls is not None:
            values |= {"run.retries": _RETRIES}
        config, _ = resolve("map", None, None, [dotted_layer(values, "hpcjobs.Executor")])
        return config

    def _start(self, draft: Draft, facts: CallFacts) -> str:
        """Write and launch a run; returns the id of its job."""
        if self.cluster == "slurm":
            check_startable(draft.config, draft.plan.shape, draft.paths, draft.plan.kind.program)
        record = start(draft)
        if facts.job_id:
            return facts.job_id
        if not record.work_jobs:
            raise LaunchError(f"{draft.paths.root} was launched without a job")
        return record.work_jobs[0]


def _is_constructed(name: str) -> bool:
    return name in _CONSTRUCTED or any(name == f"{prefix}_{one}" for prefix in _CLUSTERS for one in _CONSTRUCTED)


def _check_plain(fn: object) -> None:
    """Raise a TypeError for what gives its values one by one, or not at once: only whole results leave a process."""
    inner, name = fn, name_of(fn)
    while isinstance(inner, functools.partial):
        inner = inner.func
    called = type(inner).__dict__.get("__call__")
    for one in (inner, called):
        if inspect.isgeneratorfunction(one) or inspect.isasyncgenfunction(one):
            raise TypeError(f"{name} is a generator function, whose values cannot leave its process: return a list")
        if inspect.iscoroutinefunction(one):
            raise TypeError(f"{name} is an async function: submit one that runs it, such as asyncio.run({name}())")
