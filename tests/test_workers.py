"""How the tests are shared among worker processes (conftest.py)."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import (
    LONGEST,
    MOST_WORKERS,
    ROOT,
    SLOW,
    pytest_collection_modifyitems,
    pytest_itemcollected,
    pytest_xdist_auto_num_workers,
)

MOST = min(len(os.sched_getaffinity(0)) + 1, MOST_WORKERS)


@pytest.mark.parametrize(
    ("args", "workers"),
    [
        (["tests"], MOST), (["tests/slurm", "tests/run_folder/test_files.py"], MOST),
        (["tests/run_folder/test_files.py"], 0),
        (["tests/run_folder/test_files.py::a", "tests/run_folder/test_files.py::b"], 0),
        (["tests/run_folder/test_files.py", "tests/tasks/test_jsonl.py::a"], min(2, MOST)),
    ],
)  # fmt: skip
def test_one_file_needs_no_workers(monkeypatch: pytest.MonkeyPatch, args: list[str], workers: int) -> None:
    monkeypatch.chdir(ROOT)
    config: Any = SimpleNamespace(args=args)
    assert pytest_xdist_auto_num_workers(config) == workers


def test_workers_begin_with_the_longest_files_and_keep_the_order_inside() -> None:
    assert all((ROOT / name).is_file() for name in LONGEST)
    names = ["tests/run_folder/test_files.py", LONGEST[1], "tests/test_a.py", LONGEST[0], LONGEST[1]]
    items: list[Any] = [SimpleNamespace(path=ROOT / name, number=number) for number, name in enumerate(names)]
    worker: Any = SimpleNamespace(workerinput={})
    pytest_collection_modifyitems(worker, items)
    assert [item.number for item in items] == [3, 1, 4, 0, 2]


def test_files_that_are_slow_are_marked_and_others_are_not() -> None:
    assert all((ROOT / name).is_file() for name in SLOW)
    marked: list[Any] = []
    for name in ("tests/run_folder/test_files.py", *SLOW):
        item: Any = SimpleNamespace(path=ROOT / name, add_marker=marked.append)
        pytest_itemcollected(item)
    assert [mark.name for mark in marked] == ["slow"] * len(SLOW)
