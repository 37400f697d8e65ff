"""Checkpoints: whole or passed over, whatever kills the writer; the older stay until the newer is proven."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.errors import DiskFullError
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.training.checkpoints.checkpoint import MANIFEST, Checkpoints, proof
from tests.disks import small_disk
from tests.runs import start_process, wait_for


def filler(step: int, size: int = 1000) -> Any:
    """Writes two files whose bytes tell the step."""

    def fill(folder: Path) -> None:
        (folder / "weights").write_bytes(bytes([step % 251]) * size)
        (folder / "optimizer").write_bytes(bytes([step % 7]) * size)

    return fill


def write_steps(root: str, first: int) -> None:
    """One checkpoint after the other, without end."""
    checkpoints, step = Checkpoints(RunPaths(Path(root)), 2), first
    while True:
        step += 1
        checkpoints.write(step, {}, filler(step, 300_000))


def test_the_newest_stay_and_are_proven(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    checkpoints = Checkpoints(paths, 2)
    for step in (3, 6, 9):
        assert checkpoints.write(step, {"world_size": 4}, filler(step)) == paths.checkpoint(step)
    assert checkpoints.steps() == [9, 6]
    assert checkpoints.newest().step == 9
    manifest = json.loads((paths.checkpoint(9) / MANIFEST).read_text())
    assert manifest["world_size"] == 4
    assert {name: file["size"] for name, file in manifest["files"].items()} == {"weights": 1000, "optimizer": 1000}
    assert sorted(path.name for path in paths.checkpoints.iterdir()) == ["step-00000006", "step-00000009"]


def test_the_best_stays_beside_the_newest(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    checkpoints = Checkpoints(paths, 2, keep_best=True)
    losses = {2: 0.5, 4: 0.3, 6: 0.3, 7: None, 8: 0.4, 10: 0.2, 11: None, 12: 0.6}
    kept = []
    for step, loss in losses.items():
        checkpoints.write(step, {} if loss is None else {"eval_loss": loss}, filler(step))
        kept.append(checkpoints.steps())
    assert kept == [[2], [4, 2], [6, 4], [7, 6, 4], [8, 7, 4], [10, 8], [11, 10], [12, 11, 10]]
    best = checkpoints.best(12)
    assert best
    assert (best.step, best.eval_loss) == (10, 0.2)
    assert checkpoints.best(9) is None


def test_a_later_one_that_was_passed_over_goes_with_the_next(tmp_path: Path) -> None:
    """Else it would count as the newest, and the whole ones before it would go."""
    paths = RunPaths(tmp_path)
    checkpoints = Checkpoints(paths, 1)
    checkpoints.write(3, {}, filler(3))
    shutil.copytree(paths.checkpoint(3), paths.checkpoint(9))
    flip(paths.checkpoint(9) / "weights")
    checkpoints.write(4, {}, filler(4))
    assert checkpoints.steps() == [4]


@pytest.mark.parametrize("keep", [1, 2])
def test_damaged_ones_do_not_count_among_those_that_stay(tmp_path: Path, keep: int) -> None:
    """Or whole ones would go in their place: with the newest damaged as well, nothing would be left."""
    paths = RunPaths(tmp_path)
    for step in (1, 2, 3):
        Checkpoints(paths, 3).write(step, {}, filler(step))
    for step in (2, 3):
        flip(paths.checkpoint(step) / "weights")
    Checkpoints(paths, keep).write(4, {}, filler(4))
    assert Checkpoints(paths, keep).steps() == ([4] if keep == 1 else [4, 3, 2, 1])
    checkpoints = Checkpoints(paths, keep)
    checkpoints.write(5, {}, filler(5))
    assert checkpoints.steps() == ([5] if keep == 1 else [5, 4])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / MANIFEST).unlink(), "has no manifest.json"),
        (lambda folder: (folder / MANIFEST).write_text('{"files": '), "cannot be read"),
        (lambda folder: (folder / "weights").unlink(), "weights cannot be read"),
        (lambda folder: os.truncate(folder / "weights", 999), "weights has 999 bytes, not 1000"),
        (lambda folder: flip(folder / "optimizer"), "optimizer is not what was written"),
    ],
    ids=["no manifest", "half a manifest", "a file is gone", "a short file", "one flipped bit"],
)
def test_what_is_not_whole_is_passed_over_and_named(tmp_path: Path, damage: Any, said: str) -> None:
    paths = RunPaths(tmp_path)
    checkpoints = Checkpoints(paths, 3)
    for step in (1, 2):
        checkpoints.write(step, {}, filler(step))
    damage(paths.checkpoint(2))
    found = checkpoints.newest()
    assert found.step == 1
    assert len(found.passed_over) == 1
    assert found.passed_over[0].startswith("step-00000002: ")
    assert said in found.passed_over[0]
    checkpoints.write(2, {}, filler(2))  # the step comes again
    assert checkpoints.newest().step == 2
    assert proof(paths.checkpoint(2)) is None


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    assert Checkpoints(RunPaths(tmp_path), 2).newest().step is None


def test_a_writer_that_fails_leaves_the_older_ones_and_no_trace(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    checkpoints = Checkpoints(paths, 1)
    checkpoints.write(1, {}, filler(1))

    def fails(folder: Path) -> None:
        filler(2)(folder)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        checkpoints.write(2, {}, fails)
    assert [path.name for path in paths.checkpoints.iterdir()] == ["step-00000001"]
    assert checkpoints.newest().step == 1


def wait_for_newer(checkpoints: Checkpoints, last: int) -> None:
    wait_for(lambda: max(checkpoints.steps(), default=0) > last, "a checkpoint")


@pytest.mark.parametrize("seed", range(4))
def test_a_kill_at_any_moment_of_a_save_leaves_a_whole_one(ram: Path, seed: int) -> None:
    """Six kills one after the other: each time the newest is whole, and it is never older than the one before."""
    chance, paths, last = random.Random(seed), RunPaths(ram), 0
    checkpoints = Checkpoints(paths, 2)
    for _ in range(6):
        process = start_process(write_steps, str(ram), last)
        wait_for_newer(checkpoints, last)
        time.sleep(chance.random() * 0.05)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        found = checkpoints.newest()
        assert found.step is not None
        assert found.step > last
        weights = (paths.checkpoint(found.step) / "weights").read_bytes()
        assert weights == bytes([found.step % 251]) * 300_000
        last = found.step
    left = [path for path in paths.checkpoints.iterdir() if path.name.startswith(".")]
    checkpoints.write(last + 1, {}, filler(last + 1))
    assert not [path for path in left if path.exists()], "what the killed had begun goes with the next save"


def test_a_full_disk_is_said_and_costs_no_checkpoint(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    def big(folder: Path) -> None:
        save_file({"weights": torch.zeros(1 << 20)}, folder / "weights.safetensors")

    def pickled(folder: Path) -> None:
        torch.save(torch.zeros(1 << 20), folder / "optimizer.pt")

    with small_disk(tmp_path / "disk", "size=3m") as disk:
        checkpoints = Checkpoints(RunPaths(disk.path), 2)
        checkpoints.write(1, {}, filler(1, 1_000_000))
        for fill in (big, pickled, filler(2, 2_000_000)):
            with pytest.raises(DiskFullError, match=r"step-00000002.*about 2.0 MB.*hpcjobs resume"):
                checkpoints.write(2, {}, fill)
            assert checkpoints.newest().step == 1
            assert [path.name for path in checkpoints_of(disk.path)] == ["step-00000001"]


def checkpoints_of(folder: Path) -> list[Path]:
    """All that stands in the folder of the checkpoints."""
    return list(RunPaths(folder).checkpoints.iterdir())
