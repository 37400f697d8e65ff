"""Real trackers over a kill and a resume: one run, one curve, each step with the value of the journal."""

from __future__ import annotations

import json
import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan
from hpcjobs.training.trackers.libraries import run_id
from tests.runs import wait_for
from tests.trainings import TrainingRanks, curve_of, logs_of, plan_training, run_training

pytestmark = pytest.mark.model
ALL = ("tensorboard", "wandb", "mlflow")
OFFLINE = {"WANDB_MODE": "offline", "MLFLOW_DISABLE_TELEMETRY": "true"}
SECRET = "0123456789abcdef" * 3


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """A run on two ranks that was killed after step 5, of which its checkpoint knows three, and resumed."""
    train: dict[str, Any] = {"validation_fraction": 0.1, "eval_every": 4, "trackers": ALL}
    paths = plan_training(tmp_path_factory.mktemp("killed") / "run", 2, **train)
    config = paths.config.read_text().replace("lease_timeout: 20.0", "lease_timeout: 300.0")
    paths.config.write_text(config)
    env = OFFLINE | {"WANDB_API_KEY": SECRET}
    with TrainingRanks(paths, 2, "a", **env) as ranks:
        ranks.wait_for_step(5)
        ranks.signal(1, signal.SIGSTOP)  # rank 0 waits for it in its next step, while the trackers take what is there
        wait_for(lambda: has_begun(paths, 5), f"trackers that have step 5: {logs_of(paths)}", 120)
        ranks.signal(0, signal.SIGKILL)
        ranks.signal(1, signal.SIGKILL)
        assert 0 not in ranks.finish()
    run_training(paths, 2, "b", **env)
    assert "goes on after step" in logs_of(paths)
    return paths


def has_begun(paths: RunPaths, step: int) -> bool:
    """Whether all trackers know `step`: MLflow's metric has a line for each, W&B says so in the log."""
    lines = [len(path.read_text().splitlines()) for path in paths.trackers.rglob("metrics/loss")]
    return any(count >= step for count in lines) and "tracker wandb: run" in paths.rank_log("a", 0).read_text()


def told(paths: RunPaths, name: str = "loss") -> dict[int, float]:
    """A curve by the journals."""
    return {record.step: value for record in curve_of(paths) if (value := getattr(record, name)) is not None}


def test_tensorboard_shows_one_curve(killed: RunPaths) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folders = {path.parent for path in killed.trackers.rglob("events.*")}
    assert folders == {killed.trackers / "tensorboard"}
    events = EventAccumulator(str(killed.trackers / "tensorboard"))
    events.Reload()
    for name in ("loss", "grad_norm", "eval_loss"):
        curve = events.Scalars(name)
        assert {event.step: event.value for event in curve} == pytest.approx(told(killed, name), rel=1e-6)
        assert [event.step for event in curve] == sorted(event.step for event in curve), "a step is there twice"
    record = curve_of(killed)[2]
    assert events.Scalars("loss")[2].wall_time == pytest.approx(record.started_at + record.seconds, abs=1e-3)
    assert "train.learning_rate" in str(events.Tensors("config/text_summary")[0])


def test_wandb_offline_is_one_run_whose_last_folder_has_the_whole_curve(killed: RunPaths) -> None:
    files = sorted(killed.trackers.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2
    assert {path.stem for path in files} == {f"run-{run_id(Plan.read(killed.plan))}"}
    first = wandb_curve(list(wandb_records(files[0])), "loss")
    assert first.items() <= told(killed).items()  # how much of it was on the disk when it was killed is W&B's affair
    records = list(wandb_records(files[-1]))
    [run] = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert (run.project, run.display_name) == ("hpcjobs", "run")
    config = {item.key for record in records for item in record.run.config.update}
    config |= {item.key for record in records for item in record.config.update}
    assert {"train.learning_rate", "train.lora.alpha", "model", "data", "seed"} <= config
    for name in ("loss", "eval_loss"):
        assert wandb_curve(records, name) == told(killed, name)


def wandb_curve(records: list[Any], name: str) -> dict[int, float]:
    found: dict[int, float] = {}
    for record in records:
        values = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        if name in values:
            assert values["_step"] not in found, "a step is there twice"
            found[values["_step"]] = values[name]
    return found


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of W&B's file: its own messages, in LevelDB's log format (blocks of 32 KiB, 7 bytes before a piece).

    https://github.com/google/leveldb/blob/main/doc/log_format.md; 7 bytes of W&B's own stand before the first.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, pieces = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        room = 32768 - place % 32768
        if room < 7:
            place += room
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        pieces += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            record = Record()
            record.ParseFromString(pieces)
            yield record
            pieces = b""


def test_mlflow_has_one_run_that_is_finished(killed: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    import mlflow

    client = mlflow.MlflowClient((killed.trackers / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("hpcjobs")
    [run] = client.search_runs([experiment.experiment_id])
    assert (run.info.status, run.info.run_name, run.data.params["seed"]) == ("FINISHED", "run", "0")
    for name in ("loss", "eval_loss"):
        points = client.get_metric_history(run.info.run_id, name)
        assert {point.step: point.value for point in points} == told(killed, name)
        assert len(points) == len(told(killed, name)), "a step is there twice"


def test_no_secret_is_written(killed: RunPaths) -> None:
    files = [path for path in killed.root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert any(path.suffix == ".wandb" for path in files)
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []


def test_only_rank_0_tells(killed: RunPaths) -> None:
    for attempt in ("a", "b"):
        assert "tracker" in killed.rank_log(attempt, 0).read_text()
        assert "tracker" not in killed.rank_log(attempt, 1).read_text()


def test_trackers_that_cannot_be_reached_cost_nothing(tmp_path: Path) -> None:
    """W&B is then kept offline; the key and the password are in no log."""
    paths = plan_training(tmp_path / "run", trackers=ALL, max_steps=3)
    run_training(
        paths, 1, WANDB_MODE="online", WANDB_API_KEY=SECRET, WANDB_BASE_URL="http://127.0.0.1:9",
        WANDB_INIT_TIMEOUT="4", MLFLOW_TRACKING_URI=f"http://me:{SECRET}@127.0.0.1:9",
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="0", MLFLOW_DISABLE_TELEMETRY="true",
    )  # fmt: skip
    message = logs_of(paths)
    assert paths.model.is_dir()
    assert message.count("the run is kept offline") == 1
    assert message.count("tracker mlflow:") == 1
    assert message.count("the training goes on without it") == 1
    [file] = paths.trackers.glob("wandb/offline-run-*/run-*.wandb")
    assert wandb_curve(list(wandb_records(file)), "loss") == told(paths)
    everything = [path for path in paths.root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path for path in everything if SECRET.encode() in path.read_bytes()] == []


def test_the_users_own_names_stand(tmp_path: Path) -> None:
    """Project, run and experiment by the libraries' own variables."""
    store = tmp_path / "elsewhere"
    paths = plan_training(tmp_path / "run", trackers=("wandb", "mlflow"), max_steps=2)
    env = {"WANDB_PROJECT": "mine", "WANDB_NAME": "first", "WANDB_RUN_ID": "abc123", "MLFLOW_EXPERIMENT_NAME": "mine"}
    run_training(paths, 1, **OFFLINE, **env, MLFLOW_TRACKING_URI=store.as_uri(), MLFLOW_ALLOW_FILE_STORE="true")
    [file] = paths.trackers.glob("wandb/offline-run-*/run-abc123.wandb")
    [run] = [record.run for record in wandb_records(file) if record.WhichOneof("record_type") == "run"]
    assert (run.project, run.display_name) == ("mine", "first")
    assert not (paths.trackers / "mlruns").exists()
    assert any("name: mine" in path.read_text() for path in store.rglob("meta.yaml"))
    assert os.environ.get("MLFLOW_TRACKING_URI") != store.as_uri()
