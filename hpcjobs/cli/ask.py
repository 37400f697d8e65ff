"""Ask on a terminal before something is queued."""

from __future__ import annotations

import sys

import typer


def is_asked() -> bool:
    """Whether somebody is there to answer."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(question: str, refused: str) -> None:
    """Return if the user says yes, or nobody is there to ask; else print `refused` and leave with exit code 130."""
    if not is_asked():
        return
    if not typer.confirm(question, default=True, err=True):
        typer.echo(refused, err=True)
        raise typer.Exit(130)
