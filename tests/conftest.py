"""Fixtures shared by the tests."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings

TOOLS = Path(__file__).resolve().parent.parent / "tools"

ROOT = Path(__file__).resolve().parent.parent
MOST_WORKERS = 6
# Where several workers share the tests, the files that take longest begin first, so that none is waited for alone.
LONGEST = (
    "tests/slurm/test_train.py",
    "tests/slurm/test_faults.py",
    "tests/slurm/test_restarts.py",
    "tests/docs/test_pages.py",
    "tests/docs/test_pages_slurm.py",
    "tests/worker/test_train.py",
    "tests/slurm/test_lmeval.py",
    "tests/training/test_tiny.py",
    "tests/compare/test_world_sizes.py",
    "tests/slurm/test_eval.py",
    "tests/slurm/test_by_hand.py",
    "tests/test_connector.py",
    "tests/test_connector_kinds.py",
    "tests/test_real.py",
    "tests/slurm/test_script.py",
    "tests/commands/test_submit_train.py",
    "tests/training/test_real.py",
    "tests/compare/test_eval.py",
    "tests/functions/test_submitit_suite.py",
    "tests/functions/test_executor.py",
    "tests/slurm/test_functions.py",
    "tests/commands/test_killed_commands.py",
    "tests/commands/test_commands_at_once.py",
    "tests/test_slow_files.py",
    "tests/launch/test_supervisor.py",
    "tests/tasks/lmeval/test_tasks.py",
    "tests/merge/test_eval.py",
    "tests/tasks/lmeval/test_run.py",
    "tests/tasks/lmeval/test_library.py",
    "tests/engines/test_generate.py",
    "tests/test_runner.py",
    "tests/slurm/test_cluster.py",
    "tests/commands/test_carry_on.py",
    "tests/commands/test_verify.py",
    "tests/test_extending.py",
)

# Files of tests that start many processes or sync many files: `make quick` leaves them out.
SLOW = (
    "tests/assets/test_assets.py",
    "tests/benchmarks/test_chaos.py",
    "tests/commands/test_cancel.py",
    "tests/commands/test_carry_on.py",
    "tests/commands/test_verify.py",
    "tests/compare/test_eval.py",
    "tests/compare/test_lower_is_better.py",
    "tests/compare/test_world_sizes.py",
    "tests/docs/test_harness.py",
    "tests/docs/test_pages.py",
    "tests/functions/test_executor.py",
    "tests/functions/test_submitit_suite.py",
    "tests/launch/test_supervisor.py",
    "tests/merge/test_eval.py",
    "tests/run_folder/test_disk.py",
    "tests/tasks/lmeval/test_run.py",
    "tests/tasks/lmeval/test_library.py",
    "tests/tasks/lmeval/test_tasks.py",
    "tests/test_earlier_versions.py",
    "tests/test_extending.py",
    "tests/test_slow_files.py",
)

# A busy machine is no failure.
settings.register_profile("hpcjobs", deadline=None)
settings.load_profile("hpcjobs")


@pytest.fixture(scope="session")
def fetch_real() -> ModuleType:
    """The module tools/fetch_real.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("fetch_real", TOOLS / "fetch_real.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def real_dir(fetch_real: ModuleType) -> Path:
    """The folder of the real model and data, made on first use ($HPCJOBS_REAL or the script's default)."""
    dest: Path = fetch_real.default_dest()
    assert fetch_real.main([str(dest)]) == 0, f"tools/fetch_real.py could not make {dest}"
    return dest


@pytest.fixture
def ram(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: what tests of thousands of synced files need to be quick."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="hpcjobs-test-", dir=memory) as folder:
        yield Path(folder)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can enter, unlike pytest's own, which it closes at each start."""
    with tempfile.TemporaryDirectory(prefix="hpcjobs-test-") as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path


@pytest.fixture(scope="session")
def tiny() -> tuple[Any, Any]:
    """The asset model and its tokenizer, on CPU."""
    import torch

    from hpcjobs.engines.loader import load_model

    torch.set_num_threads(1)  # two threads on a shared core are many times slower than one
    return load_model("tiny")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """What `-n auto` means: no worker for one file; else one more than there are cores, as some tests only wait."""
    paths = {Path(arg.partition("::")[0]) for arg in config.args}
    most = min(len(os.sched_getaffinity(0)) + 1, MOST_WORKERS)
    if any(path.is_dir() for path in paths):
        return most
    return min(len(paths), most) if len(paths) > 1 else 0


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.path in {ROOT / name for name in SLOW}:
        item.add_marker(pytest.mark.slow)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        begins = {ROOT / name: number for number, name in enumerate(LONGEST)}
        items.sort(key=lambda item: begins.get(item.path, len(begins)))


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """What a worker tells of a test is sent as UTF-8, which has no lone surrogates; some tests log them."""
    return _sendable((yield))


def _sendable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {name: _sendable(one) for name, one in value.items()}
    return type(value)(map(_sendable, value)) if isinstance(value, list | tuple) else value
