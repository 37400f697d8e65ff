"""Fixtures shared by the tests."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings

TOOLS = Path(__file__).resolve().parent.parent / "tools"

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


@pytest.fixture(scope="session")
def tiny() -> tuple[Any, Any]:
    """The asset model and its tokenizer, on CPU."""
    import torch

    from hpcjobs.model_loader import load_model

    torch.set_num_threads(1)  # two threads on a shared core are many times slower than one
    return load_model("tiny")
