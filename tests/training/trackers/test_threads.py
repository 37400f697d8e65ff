"""No tracker can hold or end a training, none is missing unseen, and nothing secret reaches a log."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from hpcjobs.config.layers import Layer
from hpcjobs.config.problems import validate
from hpcjobs.errors import ConfigError
from hpcjobs.masking import masked
from hpcjobs.plan.train import make_train_plan
from hpcjobs.training.steps import StepRecord
from hpcjobs.training.trackers.base import check_trackers
from hpcjobs.training.trackers.threads import TrackerThread
from tests.trainings import ROWS, record, train_config


class Library:
    """A tracker that keeps what it is told, and at one step raises, or waits for ever."""

    def __init__(self, bad: int = 0, error: BaseException | None = None) -> None:
        self.steps: list[int] = []
        self.finished: bool | None = None
        self._bad, self._error = bad, error

    def start(self) -> None:
        assert threading.current_thread() is not threading.main_thread()

    def log_steps(self, records: Sequence[StepRecord]) -> None:
        for one in records:
            if one.step == self._bad:
                if self._error is None:
                    threading.Event().wait()
                else:
                    raise self._error
            self.steps.append(one.step)

    def finish(self, complete: bool) -> None:
        self.finished = complete


def tell_all(library: Library, complete: bool = True, patience: float = 60.0) -> None:
    thread = TrackerThread("it", library)
    thread.start()
    for step in range(1, 301):
        thread.put(record(step))
    thread.put(complete)
    thread.wait(time.monotonic() + patience)


@pytest.mark.parametrize("complete", [True, False])
def test_all_steps_in_order_and_then_the_end(complete: bool) -> None:
    library = Library()
    tell_all(library, complete)
    assert (library.steps, library.finished) == (list(range(1, 301)), complete)


@pytest.mark.parametrize("error", [OSError("no\nnetwork, key hunter22"), SystemExit(3)], ids=repr)
def test_what_a_tracker_raises_is_said_once(
    error: BaseException, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "hunter22")
    library = Library(7, error)
    tell_all(library)
    assert (library.steps, library.finished) == (list(range(1, 7)), None)
    [message] = [line.getMessage() for line in caplog.records if line.levelno >= logging.WARNING]
    assert message.startswith(f"tracker it: {type(error).__name__}: ")
    assert message.endswith("; the training goes on without it")
    assert "hunter22" not in message


def test_a_tracker_that_hangs_is_left(caplog: pytest.LogCaptureFixture) -> None:
    tell_all(Library(7), patience=0.5)
    [message] = [line.getMessage() for line in caplog.records]
    assert message.startswith("tracker it has not taken all in time: about ")


def test_what_the_environment_keeps_secret_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, f"value-of-{name}")
        assert masked(f"it was value-of-{name}!") == "it was ***!"
    assert masked("at https://me:word@host.example/api") == "at https://***@host.example/api"
    assert masked("user me@host at https://host/a@b") == "user me@host at https://host/a@b"


def test_a_tracker_that_is_missing_is_refused_with_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a plain folder has its name, as W&B leaves one beside the user's files."""
    check_trackers(["tensorboard", "wandb", "mlflow"])
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    for name in [name for name in sys.modules if name.partition(".")[0] in ("wandb", "mlflow")]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "wandb").mkdir()
    with pytest.raises(ConfigError, match="wandb, mlflow cannot be imported; next: pip install wandb mlflow"):
        check_trackers(["wandb", "mlflow"])


def test_the_plan_looks_for_them_where_the_job_runs_as_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config = train_config(data, trackers=("wandb",))
    with pytest.raises(ConfigError, match="pip install wandb"):
        make_train_plan(config, tmp_path / "run")
    values = config.model_dump() | {"cluster": config.cluster.model_dump() | {"container": "image.sqsh"}}
    assert make_train_plan(validate(Layer(values)), tmp_path / "run").plan.job == "train"
