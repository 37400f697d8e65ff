"""TensorBoard, W&B and MLflow through accelerate's trackers: one curve per run, over all of its starts."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpcjobs.masking import masked
from hpcjobs.run_folder.files import make_folder
from hpcjobs.training.steps import StepRecord
from hpcjobs.training.trackers.base import Tracker, error_message

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from hpcjobs.distributed.work import Work
    from hpcjobs.run_folder.plan import Plan

log = logging.getLogger(__name__)
# The project (W&B) or experiment (MLflow), unless the environment sets one.
PROJECT = "hpcjobs"
_TAG = "hpcjobs.id"


def make_tracker(name: str, work: Work) -> Tracker:
    """The tracker of this name. Its library is not imported before it starts."""
    kinds: dict[str, type[TensorBoard | WeightsAndBiases | Mlflow]] = {
        "tensorboard": TensorBoard, "wandb": WeightsAndBiases, "mlflow": Mlflow,
    }  # fmt: skip
    return kinds[name](make_folder(work.paths.trackers), work.plan, facts(work))


def run_id(plan: Plan) -> str:
    """An id that is the same at every start of a run, and differs between runs."""
    return hashlib.sha256(f"{plan.run} {plan.created_at} {plan.config_sha256}".encode()).hexdigest()[:12]


def facts(work: Work) -> dict[str, int | float | str]:
    """The config that trackers record: train keys by dotted name, model, data, seed."""
    found: dict[str, int | float | str] = {}

    def put(name: str, value: object) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                put(f"{name}.{key}", inner)
        elif value is not None:
            found[name] = value if isinstance(value, int | float | str) else str(value)

    put("train", work.config.train.model_dump(mode="json"))
    put("model", work.config.model.name)
    put("data", work.config.data.title)
    put("seed", work.config.run.seed)
    put("config_sha256", work.plan.config_sha256)
    return found


def curves(record: StepRecord) -> dict[str, float]:
    """The values of a step, by the names of their curves."""
    names = ("loss", "learning_rate", "grad_norm", "tokens_per_s", "epoch", "eval_loss")
    return {name: value for name in names if (value := getattr(record, name)) is not None}


def ended_at(record: StepRecord) -> float:
    """When a step ended, in Unix seconds."""
    return record.started_at + record.seconds


class TensorBoard:
    """Event files in trackers/tensorboard. Each start writes the whole curve and hides those of earlier starts."""

    def __init__(self, folder: Path, plan: Plan, facts: Mapping[str, int | float | str]) -> None:
        self._folder, self._facts = folder, facts

    def start(self) -> None:
        """Open a new event file with purge_step 0."""
        from accelerate.tracking import TensorBoardTracker

        # Readers drop earlier values from this step on (SummaryWriter's purge_step).
        self._tracker = TensorBoardTracker("tensorboard", str(self._folder), purge_step=0)
        self._tracker.start()
        rows = "\n".join(f"| {name} | {value} |" for name, value in self._facts.items())
        self._tracker.writer.add_text("config", f"| key | value |\n|---|---|\n{rows}", 0)

    def log_steps(self, records: Sequence[StepRecord]) -> None:
        """Write the steps' values."""
        for record in records:
            self._tracker.log(curves(record), step=record.step, walltime=ended_at(record))

    def finish(self, complete: bool) -> None:
        """Close the event file."""
        self._tracker.finish()


class WeightsAndBiases:
    """One W&B run over all starts, by its id. Offline, each start's folder has the whole curve.

    If W&B cannot be reached or has no API key, the run is kept offline.
    """

    def __init__(self, folder: Path, plan: Plan, facts: Mapping[str, int | float | str]) -> None:
        self._folder, self._plan, self._facts = folder, plan, facts
        self._first = 0

    def start(self) -> None:
        """Start or resume the W&B run, offline if that fails."""
        try:
            self._start()
        except Exception as error:
            if os.environ.get("WANDB_MODE") == "offline":
                raise
            log.warning("tracker wandb: %s; the run is kept offline", error_message(error))
            self._start_offline()
        run = self._tracker.run
        self._first = 0 if run.offline else run.step  # what was told before is there, and W&B takes no step twice
        kept = run.settings.sync_dir
        where = f"in {kept}; next: wandb sync {kept}" if run.offline else f"at {masked(run.url or '')}"
        log.info("tracker wandb: run %s %s", run.id, where)

    def _start_offline(self) -> None:
        import wandb

        wandb.teardown(1)  # its service still holds the run that could not be begun
        self._start(mode="offline")

    def _start(self, **more: str) -> None:
        import wandb
        from accelerate.tracking import WandBTracker

        # Arguments override the environment, so they are given only if its variables are not set.
        own = {"id": run_id(self._plan), "name": self._plan.run, "dir": str(self._folder), "resume": "allow"}
        variables = {"id": "WANDB_RUN_ID", "name": "WANDB_NAME", "dir": "WANDB_DIR", "resume": "WANDB_RESUME"}
        given = {key: value for key, value in own.items() if not os.environ.get(variables[key])}
        quiet = wandb.Settings(console="off", silent=True)
        project = os.environ.get("WANDB_PROJECT") or PROJECT
        self._tracker = WandBTracker(project, settings=quiet, **given, **more)
        self._tracker.start()
        self._tracker.store_init_configuration(dict(self._facts))

    def log_steps(self, records: Sequence[StepRecord]) -> None:
        """Log steps that W&B does not have yet."""
        for record in records:
            if record.step >= self._first:
                self._tracker.log(curves(record) | {"_timestamp": ended_at(record)}, step=record.step)

    def finish(self, complete: bool) -> None:
        """Finish the W&B run, or mark it as preempted."""
        if not complete:
            self._tracker.run.mark_preempting()
        self._tracker.run.finish(exit_code=0 if complete else 1)


class Mlflow:
    """One MLflow run over all starts, found by a tag; in trackers/mlruns unless MLFLOW_TRACKING_URI is set."""

    def __init__(self, folder: Path, plan: Plan, facts: Mapping[str, int | float | str]) -> None:
        self._store, self._plan, self._facts = folder / "mlruns", plan, facts
        self._has: set[int] = set()

    def start(self) -> None:
        """Start or continue the MLflow run."""
        # Plain files, because shared file systems break SQLite's locks. MLflow 3 requires this variable for them.
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            os.environ["MLFLOW_TRACKING_URI"] = self._store.absolute().as_uri()
        import mlflow
        from accelerate.tracking import MLflowTracker

        client = mlflow.MlflowClient()
        before = self._before(client)
        self._tracker = MLflowTracker(PROJECT, run_id=before, run_name=self._plan.run)
        self._tracker.start()
        run = self._tracker.active_run.info.run_id
        if before is None:
            client.set_tag(run, _TAG, run_id(self._plan))
            self._tracker.store_init_configuration(dict(self._facts))
        else:
            self._has = {point.step for point in client.get_metric_history(run, "loss")}
        log.info("tracker mlflow: run %s at %s", run, masked(mlflow.get_tracking_uri()))

    def _before(self, client: MlflowClient) -> str | None:
        """The run of an earlier start."""
        experiment = client.get_experiment_by_name(os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT)
        if experiment is None:
            return None
        found = client.search_runs([experiment.experiment_id], f"tags.`{_TAG}` = '{run_id(self._plan)}'")
        return found[0].info.run_id if found else None

    def log_steps(self, records: Sequence[StepRecord]) -> None:
        """Log steps that MLflow does not have yet."""
        import mlflow

        new = [record for record in records if record.step not in self._has]
        points = [
            mlflow.entities.Metric(name, value, int(ended_at(record) * 1000), record.step)
            for record in new
            for name, value in curves(record).items()
        ]
        if points:  # at most 1000 a request
            mlflow.MlflowClient().log_batch(self._tracker.active_run.info.run_id, metrics=points)
        self._has |= {record.step for record in new}

    def finish(self, complete: bool) -> None:
        """End the MLflow run as FINISHED or KILLED."""
        import mlflow

        mlflow.end_run("FINISHED" if complete else "KILLED")
