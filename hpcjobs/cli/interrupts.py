"""Ctrl-C while a command starts a run, or runs its rank: what stands, and how to go on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import typer

from hpcjobs.cli.show_run import echo_hints, print_error
from hpcjobs.commands.status import read_status
from hpcjobs.run_folder.job_kinds import find_kind
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.submission import read_launches


@contextlib.contextmanager
def interruptible(paths: RunPaths) -> Iterator[None]:
    """Leave with exit code 130 if the block is interrupted, after a line about the run."""
    try:
        yield
    except KeyboardInterrupt:
        _tell(paths)
        raise typer.Exit(130) from None


def _tell(paths: RunPaths) -> None:
    if not paths.plan.is_file():
        return print_error("\ninterrupted: nothing was started")
    newest = read_launches(paths)[-1:]
    if not newest or not newest[0].launched:
        return print_error(
            f"\ninterrupted while it was being started; next: hpcjobs status {paths.root}, which shows what was"
        )
    status = read_status(paths)
    if not status.over:
        return echo_hints(paths)
    counted = find_kind(status.job).counted
    kept = f"{status.done} of {status.rows} {counted} are done and kept" if status.rows else "its program has ended"
    return print_error(f"\ninterrupted: {kept}; next: hpcjobs resume {paths.root}")
