"""Show samples of a run, as text or as JSON Lines."""

from __future__ import annotations

import json

import typer

from hpcjobs.report.show import Found


def show_samples(found: Found, limit: int, as_json: bool) -> None:
    """Print the samples, and on stderr how many there are if not all are shown."""
    for number, sample in enumerate(found.samples):
        if as_json:
            typer.echo(json.dumps(sample.values(), default=str))
            continue
        for line in (*([""] if number else []), *sample.lines()):
            typer.echo(line)
    if not found.total:
        typer.echo("no such sample", err=True)
    elif found.total > limit:
        typer.echo(f"{limit} of {found.total}: --limit {found.total} shows all", err=True)
