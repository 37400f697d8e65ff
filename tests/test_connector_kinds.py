"""The connector under torchrun, `accelerate launch` and in a notebook: each kind of data and of results is right, or
refused with a UsageError on every rank alike. The kinds are those of tests/connector_kinds.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from hpcjobs.launch.slurm import clean_environment

pytestmark = pytest.mark.model
ROOT = Path(__file__).resolve().parent.parent
PYTHON = [sys.executable, "-m"]
LAUNCHERS = {
    ("torchrun", 1): [*PYTHON, "torch.distributed.run", "--standalone", "--nproc_per_node", "1", "-m"],
    ("torchrun", 2): [*PYTHON, "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"],
    ("accelerate launch", 1): [*PYTHON, "accelerate.commands.launch", "--num_processes", "1", "-m"],
    ("accelerate launch", 2): [
        *PYTHON, "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
        "--rdzv_backend", "c10d", "--main_process_port", "0", "--mixed_precision", "no", "-m",
    ],
}  # fmt: skip
# How many kinds of data, results and prompts are right, and how many are refused, by number of ranks.
COUNTS = {1: (61, 33), 2: (61, 51)}


@pytest.mark.parametrize(("launcher", "ranks"), LAUNCHERS)
def test_every_kind_under_a_launcher(tmp_path: Path, launcher: str, ranks: int) -> None:
    _run([*LAUNCHERS[launcher, ranks], "tests.connector_ranks", str(tmp_path)])
    _check(tmp_path, ranks)


def test_every_kind_in_a_notebook(tmp_path: Path) -> None:
    """On two ranks of accelerate's notebook_launcher, after a cell that worked alone; then in the notebook itself."""
    two, one = str(tmp_path / "two"), str(tmp_path / "one")
    cells = [
        "from accelerate import notebook_launcher\nfrom tests.connector_ranks import main",
        "from hpcjobs.connector import AccelerateConnector\nAccelerateConnector('tiny').split_dataset(['a'])",
        f"notebook_launcher(main, ({two!r},), 2, use_port='0', rdzv_backend='c10d', rdzv_endpoint='localhost:0')",
        f"main({one!r})",
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {
        "nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel},
        "cells": [
            {"cell_type": "code", "id": str(n), "metadata": {}, "source": cell, "outputs": [], "execution_count": None}
            for n, cell in enumerate(cells)
        ],
    }  # fmt: skip
    (tmp_path / "kinds.ipynb").write_text(json.dumps(notebook))
    own = {"JUPYTER_RUNTIME_DIR": f"{tmp_path}/jupyter", "IPYTHONDIR": f"{tmp_path}/ipython"}
    _run([sys.executable, "-c", "from nbclient.cli import main; main()", str(tmp_path / "kinds.ipynb")], own)
    _check(Path(two), 2)
    _check(Path(one), 1)


def _run(command: list[str], more: Mapping[str, str] | None = None) -> None:
    env = clean_environment(os.environ) | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=env | dict(more or {}), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _check(folder: Path, ranks: int) -> None:
    """Nothing but what is right or refused, the same on every rank."""
    found = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]
    assert [one.pop("world") for one in found] == [ranks] * ranks
    wrong = [f"rank {rank}: {name}: {said}" for rank, one in enumerate(found) for name, said in one.items()
             if said not in ("right", "refused", "gone")]  # fmt: skip
    assert wrong == []
    assert all(one == found[0] for one in found)
    outcomes = [*found[0].values()]
    assert (outcomes.count("right"), outcomes.count("refused")) == COUNTS[ranks]
    assert ("results: of a lost rank" in found[0]) == (ranks > 1)
