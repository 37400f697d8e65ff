"""Evals after a train run: `python -m hpcjobs.commands.then_eval RUN` starts those that have not been started."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from hpcjobs.commands.submit import start
from hpcjobs.commands.wait import wait
from hpcjobs.config.layers import dotted_layer, file_layer, merge_layers
from hpcjobs.config.problems import validate
from hpcjobs.errors import HpcJobsError
from hpcjobs.launch.entry import begin_evals
from hpcjobs.launch.jobs import known_launches
from hpcjobs.plan.eval import make_plan
from hpcjobs.run_folder.files import write_whole
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.removal import remove_folder
from hpcjobs.run_folder.submission import Launch, read_launches
from hpcjobs.training.evals import models_of

log = logging.getLogger(__name__)


def start_evals(paths: RunPaths, echo: Callable[[str], None]) -> None:
    """Start the eval of `train.then_eval` for every model of the run that has none yet.

    Under Slurm all at once; otherwise a process runs one after the other. If some cannot be started, the others are
    tried first, and then the last HpcJobsError is raised.
    """
    due: Iterable[int | None] = _due(paths)
    if _executor(paths) != "slurm" and len(due := list(due)) > 1:
        echo(f"evals   one after the other, by process {begin_evals(paths, apart=True).pid}")
        return
    failed: HpcJobsError | None = None
    for step in due:
        try:
            start_eval(paths, step, echo)
        except HpcJobsError as error:
            log.error("no eval of %s: %s", _model(paths, step), error)
            failed = error
    if failed:
        raise failed


def start_eval(paths: RunPaths, step: int | None, echo: Callable[[str], None]) -> Launch:
    """Submit the eval of the model of `step` (None: the final one). It must not have been started before.

    Why it cannot be started is written down for `status`.
    """
    try:
        started = _started(paths, step)
    except Exception as error:
        why = str(error) if isinstance(error, HpcJobsError) else f"{type(error).__name__}: {error}"
        with contextlib.suppress(OSError):  # the disk may be full
            write_whole(paths.eval_failure(step), f"{why}; next: hpcjobs resume {paths.root}")
        raise
    paths.eval_failure(step).unlink(missing_ok=True)
    echo(f"eval    {paths.eval_of(step)}: {', '.join(f'{kind} {job}' for kind, job in started.jobs.items())}")
    return started


def _started(paths: RunPaths, step: int | None) -> Launch:
    folder = paths.eval_of(step)
    if folder.exists():  # whoever was at it was cut off before anything was queued
        remove_folder(folder)
    values: dict[str, object] = {"model.name": str(_model(paths, step)), "model.revision": None}
    if (executor := _executor(paths)) not in (None, "slurm"):
        values["cluster.executor"] = executor
    config = validate(merge_layers([file_layer(paths.then_eval), dotted_layer(values, "train.then_eval")]))
    return start(make_plan("eval", config, folder))


def _model(paths: RunPaths, step: int | None) -> Path:
    return paths.model if step is None else paths.step_model(step)


def _executor(paths: RunPaths) -> str | None:
    """The executor of the training; None if it was started by hand."""
    launches = read_launches(paths)
    return launches[-1].executor if launches else None


def _due(paths: RunPaths) -> Iterator[int | None]:
    """The models whose eval has not been started. Checked when it is their turn: another process may have started one.
    """
    for step, _ in models_of(paths):
        if not any(one.jobs or one.starting for one in known_launches(RunPaths(paths.eval_of(step)))):
            yield step


def _one_by_one(paths: RunPaths) -> None:
    for step in _due(paths):
        try:
            start_eval(paths, step, log.info)
            wait(RunPaths(paths.eval_of(step)), lambda status: None)
        except HpcJobsError as error:
            log.error("no eval of %s: %s", _model(paths, step), error)


def main(run_dir: str) -> None:
    """Start the evals that are due. Without Slurm, run them one after the other."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    paths = RunPaths(Path(run_dir))
    if _executor(paths) == "slurm":
        try:
            start_evals(paths, log.info)
        except HpcJobsError:
            sys.exit(1)  # it was said
    else:
        _one_by_one(paths)


if __name__ == "__main__":
    main(sys.argv[1])
