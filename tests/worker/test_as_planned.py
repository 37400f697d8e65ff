"""Ranks find the inputs, the model and the packages that were planned, or end and say what differs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcjobs.config.yaml import dump_yaml, parse_yaml
from hpcjobs.merge.eval import merge
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.heartbeat import read_heartbeat
from hpcjobs.run_folder.paths import RunPaths
from tests.runs import Ranks, plan_run, run_ranks


def other_rows(paths: RunPaths) -> None:
    paths.data.write_bytes(paths.data.read_bytes().replace("né 3 x".encode(), "né 3 y".encode()))


def older_package(paths: RunPaths) -> None:
    versions = read_json(paths.versions)
    paths.versions.write_text(json.dumps(versions | {"transformers": "4.0.0"}))


def new_package(paths: RunPaths) -> None:
    versions = read_json(paths.versions)
    del versions["torch"]
    paths.versions.write_text(json.dumps(versions))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_rows, "data.arrow: planned sha256 "),
        (older_package, "transformers: 4.0.0 at the first start, now "),
        (new_package, "torch: not installed at the first start, now "),
    ],
)
def test_a_change_ends_the_rank_unless_it_is_allowed(
    ram: Path, change: Callable[[RunPaths], None], said: str
) -> None:
    paths = plan_run(ram / "run", 8)
    run_ranks(paths, 1)
    merge(paths)
    assert not read_json(paths.metrics)["warnings"]
    change(paths)
    with Ranks(paths, 1, "b") as ranks:
        ranks.start(0)
        assert ranks.finish(0) == [1]
    vitals = read_heartbeat(paths.heartbeat("b", 0))
    assert vitals
    assert vitals.fatal, "no restart changes it"
    assert said in (vitals.first_error or "")
    values = parse_yaml(paths.config.read_text())
    values["run"]["allow_changed"] = True
    paths.config.write_text(dump_yaml(values))
    run_ranks(paths, 1, "c")
    merge(paths)
    [warning] = read_json(paths.metrics)["warnings"]
    assert warning.startswith("not as planned, and allowed (run.allow_changed): ")
    assert said in warning
