"""Checkpoints beside the training: what is written is the state of its step, one at a time, and no error is lost."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hpcjobs.errors import DiskFullError
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.training.checkpoints import saver as saver_module
from hpcjobs.training.checkpoints.checkpoint import Checkpoints
from hpcjobs.training.checkpoints.saver import CheckpointSaver
from hpcjobs.training.checkpoints.state import StepState
from tests.disks import small_disk

pytestmark = pytest.mark.model


class Gated(Checkpoints):
    """Checkpoints whose writer waits until it is let through."""

    def __init__(self, paths: RunPaths, keep: int) -> None:
        super().__init__(paths, keep)
        self.begun, self.gate = threading.Event(), threading.Event()

    def write(self, step: int, facts: Mapping[str, Any], fill: Any) -> Path:
        self.begun.set()
        assert self.gate.wait(60)
        return super().write(step, facts, fill)


def snapshot(value: float, size: int = 8) -> StepState:
    moments = {0: {"exp_avg": torch.full((size,), value), "step": torch.tensor(value)}}
    rest = {"optimizer": {"state": moments, "param_groups": [{"lr": value, "betas": (0.9, 0.999)}]}, "scheduler": {}}
    return StepState({"weight": torch.full((size,), value)}, rest, [{"torch": torch.get_rng_state()}])


def weights(paths: RunPaths, step: int) -> list[float]:
    found: list[float] = load_file(paths.checkpoint(step) / "weights.safetensors")["weight"].tolist()
    return found


def test_what_is_written_is_the_state_of_its_step(tmp_path: Path) -> None:
    """The training changes weights and moments in place while the writer has not even begun."""
    paths = RunPaths(tmp_path)
    checkpoints = Gated(paths, 2)
    saver, state = CheckpointSaver(checkpoints, True, False), snapshot(1.0)
    saver.begin(5, {}, state)
    assert checkpoints.begun.wait(60)
    assert saver.busy
    state.weights["weight"].zero_()
    state.rest["optimizer"]["state"][0]["exp_avg"].zero_()
    state.rest["optimizer"]["param_groups"][0]["lr"] = 0.0
    checkpoints.gate.set()
    saver.settle()
    assert not saver.busy
    assert saver.written == 5
    assert checkpoints.newest().step == 5
    assert weights(paths, 5) == [1.0] * 8
    rest = torch.load(paths.checkpoint(5) / "optimizer.pt", weights_only=True)
    assert rest["optimizer"]["state"][0]["exp_avg"].tolist() == [1.0] * 8
    assert rest["optimizer"]["param_groups"] == [{"lr": 1.0, "betas": (0.9, 0.999)}]


def test_one_is_written_after_the_other(tmp_path: Path) -> None:
    checkpoints = Gated(RunPaths(tmp_path), 3)
    saver = CheckpointSaver(checkpoints, True, False)
    saver.begin(1, {}, snapshot(1.0))
    second = threading.Thread(target=saver.begin, args=(2, {}, snapshot(2.0)))
    second.start()
    assert checkpoints.begun.wait(60)
    assert second.is_alive(), "the second did not wait for the first"
    assert checkpoints.steps() == []
    checkpoints.gate.set()
    second.join()
    assert checkpoints.steps()[-1] == 1
    saver.settle()
    assert checkpoints.steps() == [2, 1]


@pytest.mark.parametrize("background", [True, False])
def test_a_full_disk_is_told_once_and_the_older_stays(tmp_path: Path, background: bool) -> None:
    with small_disk(tmp_path / "disk", "size=2m") as disk:
        paths = RunPaths(disk.path)
        saver = CheckpointSaver(Checkpoints(paths, 2), background, False)
        saver.begin(1, {}, snapshot(1.0))
        saver.settle()

        def begin_and_look() -> None:
            saver.begin(2, {}, snapshot(2.0, 1_000_000))
            saver.settle()

        with pytest.raises(DiskFullError):
            begin_and_look()
        saver.check()
        assert saver.written == 1
        assert Checkpoints(paths, 2).newest().step == 1
        assert [path.name for path in paths.checkpoints.iterdir()] == ["step-00000001"]


def test_the_training_is_told_of_an_error_by_its_next_step(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where a folder is to be")
    saver = CheckpointSaver(Checkpoints(RunPaths(tmp_path), 2), True, False)
    saver.begin(1, {}, snapshot(1.0))
    thread = saver._thread
    assert thread is not None
    thread.join()
    with pytest.raises(OSError, match="checkpoints"):
        saver.check()


@pytest.mark.parametrize(("gpu", "less", "beside"), [(True, 0, True), (True, 1, False), (False, 0, False)])
def test_auto_copies_where_a_gpu_trains_and_memory_has_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: bool, less: int, beside: bool
) -> None:
    state = snapshot(1.0)
    assert state.size == 8 * 4 + 8 * 4 + 4
    monkeypatch.setattr(saver_module, "host_memory", lambda: 2 * state.size - less)
    checkpoints = Gated(RunPaths(tmp_path), 2)
    if not beside:
        checkpoints.gate.set()
    saver = CheckpointSaver(checkpoints, "auto", gpu)
    saver.begin(1, {}, state)
    assert saver.busy is beside
    checkpoints.gate.set()
    saver.settle()
    assert checkpoints.newest().step == 1


def test_the_first_write_is_expected_to_be_slow_and_the_next_as_the_last(tmp_path: Path) -> None:
    """Somebody must decide whether a first checkpoint still fits before the time limit."""
    saver = CheckpointSaver(Checkpoints(RunPaths(tmp_path), 2), True, False, expected=84 * 10**9)
    assert saver.seconds == 840
    assert saver.left() == 0, "nothing is being written"
    saver.begin(1, {}, snapshot(1.0))
    saver.settle()
    assert 0 < saver.seconds < 840
