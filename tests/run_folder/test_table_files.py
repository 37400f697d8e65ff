"""The merged table is switched as a whole, and a better one stays."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from hpcjobs.merge.eval import merge
from hpcjobs.merge.score import rescore
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.paths import RunPaths
from tests.kill_points import killed_at, operations
from tests.runs import hpcjobs, missing_lines, plan_run, run_ranks

ROWS = 97


@pytest.fixture
def paths(ram: Path) -> RunPaths:
    """A merged run whose table was scored again by another metric than the run's."""
    found = plan_run(ram / "run", ROWS)
    run_ranks(found, 2)
    merge(found)
    rescore(found, ["f1"], None)
    return found


def table(paths: RunPaths) -> tuple[bytes, bytes, list[str]]:
    return paths.results.read_bytes(), paths.missing.read_bytes(), sorted(read_json(paths.metrics)["metrics"])


def test_a_merge_that_is_killed_anywhere_leaves_one_whole_table(paths: RunPaths, ram: Path) -> None:
    """SIGKILL before and after each operation of merge: the table of `score` or of `merge`, and never some of both."""
    old = table(paths)
    code, seen = operations(ram, ["merge", str(paths.root)], ram / "seen")
    assert (code, old[2]) == (0, ["f1"])
    new = table(paths)
    assert new != old
    switching = [at for at, what in enumerate(seen) if "/tables/" in what]
    assert len(switching) > 3
    step = 1 if os.environ.get("HPCJOBS_KILLS") == "whole" else 3
    for at in range(switching[0], switching[-1] + 3, step):
        rescore(paths, ["f1"], None)
        assert table(paths) == old
        if killed_at(ram, at, ["merge", str(paths.root)], ram / "seen"):
            assert table(paths) in (old, new), seen[at]
    assert hpcjobs("merge", paths.root).returncode == 0
    assert table(paths) == new
    assert sorted(entry.name for entry in paths.tables.iterdir())[1:] == ["current"], "older tables are left"
    assert [one for one in os.listdir(paths.root) if one.endswith(".tmp")] == []


def test_a_copy_that_followed_the_links_can_be_merged(paths: RunPaths, ram: Path) -> None:
    """As `scp -r` and `cp -rL` make one: `tables/current` is a folder, and the three files are files."""
    copied = RunPaths(Path(shutil.copytree(paths.root, ram / "copy")))
    assert copied.table.is_dir()
    assert not copied.table.is_symlink()
    for again in range(2):
        assert merge(copied).complete, again
        assert copied.table.is_symlink()
    merge(paths)
    assert table(copied) == table(paths)
    assert sorted(entry.name for entry in copied.tables.iterdir())[1:] == ["current"]


def test_plain_files_of_an_earlier_version_are_read_and_replaced(paths: RunPaths) -> None:
    before = table(paths)
    for path in (paths.results, paths.missing, paths.metrics):
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    assert table(paths) == before
    merge(paths)
    assert paths.results.is_symlink()
    assert table(paths)[2] == ["contains", "exact_match"]


def test_without_symbolic_links_the_files_are_replaced(paths: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (paths.results, paths.missing, paths.metrics):
        path.unlink()

    def refused(*words: object) -> None:
        raise PermissionError(1, "no symbolic links here")

    monkeypatch.setattr(os, "symlink", refused)
    assert merge(paths).complete
    assert not paths.results.is_symlink()
    assert table(paths)[2] == ["contains", "exact_match"]


def test_a_merge_with_fewer_samples_stops_and_the_table_stays(paths: RunPaths) -> None:
    merge(paths)
    before = table(paths)
    lost = min(paths.journals(), key=lambda path: path.stat().st_size or ROWS**9)  # a rank may have had none
    kept = lost.rename(paths.root / "kept")
    done = hpcjobs("merge", paths.root)
    assert done.returncode == 3
    assert "fewer than the 97 of the table that stands, which is kept" in done.stderr
    assert f"next: hpcjobs resume {paths.root}" in done.stderr
    assert table(paths) == before
    assert not list(paths.root.glob(".*"))
    assert 0 < len(merge(paths).missing) < ROWS, "resume runs these"
    kept.rename(lost)
    assert hpcjobs("merge", paths.root).returncode == 0
    lost.unlink()
    paths.metrics.unlink()
    assert hpcjobs("merge", paths.root).returncode == 3
    assert missing_lines(paths), "what stood was removed: the smaller table is made"

