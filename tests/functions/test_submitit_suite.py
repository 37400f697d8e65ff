"""submitit's own tests of what its users see, from the installed package, with hpcjobs in the place of its executors.

Left out are those of its insides: its watcher and sacct, its sbatch text, its signal handler and `LocalJob._process`,
its fakes of executors and plugins; those with limits of 2 or 3 s; `local_setup`; and folders whose names hold what no
run folder's may (quotes, line ends). Their functions are the same objects as before: nothing of them is copied.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import submitit
from submitit.core import plugins
from submitit.local import local

import hpcjobs
from hpcjobs.commands.cancel import cancel
from hpcjobs.run_folder.paths import RunPaths


class LocalExecutor(hpcjobs.Executor):
    """As submitit's of that name, whose parameters have no prefix, and whose minutes may be parts of one."""

    def __init__(self, folder: Path, max_num_timeout: int = 3, **parameters: Any) -> None:
        super().__init__(folder, "local", max_num_timeout=max_num_timeout, **parameters)

    def update_parameters(self, **kwargs: Any) -> None:
        for name in ("timeout_min", "signal_delay_s"):
            if name in kwargs:
                self._executor.parameters[name] = kwargs.pop(name)
        super().update_parameters(**kwargs)


# Each runs by hpcjobs.Executor: on this machine, or in this process.
LOCAL = [
    "local.test_local:test_local_map_array",
    "local.test_local:test_local_submit_array",
    "local.test_local:test_local_error",
    "local.test_local:test_pickle_output_from_main",
    "local.test_local:test_get_first_task_error",
    "local.test_local:test_stdout",
    "local.test_local:test_load_submission",
    "auto.test_auto:test_redirect_stdout_stderr",
    "auto.test_auto:test_python_executor",
    "auto.test_auto:test_local_executor",
    "test_pickle:test_nested_pickling",
]
DEBUG = [
    "test_debug_job", "test_debug_map_array", "test_debug_submit_array", "test_debug_error", "test_debug_triggered",
    "test_cancel", "test_job_environment",
]  # fmt: skip


@pytest.fixture
def executors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    plugins.get_executors()  # those of submitit, on which hpcjobs.Executor is built
    monkeypatch.setattr(local, "LocalExecutor", LocalExecutor)
    monkeypatch.setattr(local, "LocalJob", hpcjobs.Job)
    monkeypatch.setattr("submitit.test_pickle.LocalExecutor", LocalExecutor, raising=False)
    monkeypatch.setattr("submitit.auto.auto.AutoExecutor", hpcjobs.AutoExecutor)
    monkeypatch.setattr(submitit, "AutoExecutor", hpcjobs.AutoExecutor)
    yield
    for facts in tmp_path.glob("*/inputs/calls.json"):
        cancel(RunPaths(facts.parent.parent))


@pytest.mark.parametrize("name", LOCAL)
def test_of_submitit(name: str, executors: None, tmp_path: Path) -> None:
    module, _, test = name.partition(":")
    function = getattr(importlib.import_module(f"submitit.{module}"), test)
    function(LocalExecutor(tmp_path) if "executor" in function.__code__.co_varnames[:1] else tmp_path)


@pytest.mark.parametrize("test", DEBUG)
def test_of_submitit_in_this_process(test: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("submitit.local.test_debug")
    monkeypatch.setattr(module.debug, "DebugExecutor", lambda folder: hpcjobs.AutoExecutor(folder, "debug"))
    getattr(module, test)(tmp_path)
