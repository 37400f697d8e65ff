"""Show the findings of verify and compare, as text or JSON."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING

import typer

from hpcjobs.commands.verify_verdict import VerifyVerdict

if TYPE_CHECKING:
    from hpcjobs.compare.eval_findings import Findings
    from hpcjobs.compare.train_findings import TrainFindings
from hpcjobs.cli.show_run import print_error


def show_verdict(verdict: VerifyVerdict, as_json: bool) -> None:
    """Show whether the runs are identical, or the first flips; all flips as JSON."""
    if not as_json:
        for line in verdict.lines():
            typer.echo(line)
        for line in verdict.advice():
            print_error(line)
        return
    typer.echo(f'{json.dumps(verdict.values())[:-1]}, "flips": [', nl=False)
    with verdict.flips.open(encoding="ascii") as lines:
        for number, line in enumerate(lines):
            typer.echo(f"{', ' if number else ''}{line.rstrip()}", nl=False)
    typer.echo("]}")


def show_findings(findings: Findings, limit: int, as_json: bool) -> None:
    """Show the findings of compare and the first flips; all flips as JSON."""
    from hpcjobs.compare.flips import write_flips

    flips, out = findings.comparison.flips, findings.out
    written = None if out is None else write_flips(out, flips())
    if as_json:
        return _findings_json(findings)
    for line in findings.lines():
        typer.echo(line)
    for flip in islice(flips(), limit):
        for line in flip.lines():
            typer.echo(line)
    if written is not None:
        typer.echo(f"all {written} flipped samples: {out}")
    elif next(islice(flips(), limit, None), None):
        typer.echo("more samples have flipped: --limit prints more of them, --out FILE writes all")
    for line in findings.warnings():
        print_error(f"warning: {line}")
    return None


def show_trainings(findings: TrainFindings, as_json: bool) -> None:
    """Show the findings of compare for two train runs."""
    if as_json:
        typer.echo(json.dumps(findings.values(), allow_nan=False))
        return
    for line in findings.lines():
        typer.echo(line)
    for line in findings.warnings():
        print_error(f"warning: {line}")


def _findings_json(findings: Findings) -> None:
    count = 0
    typer.echo(f'{json.dumps(findings.values(), allow_nan=False)[:-1]}, "flips": [', nl=False)
    for count, flip in enumerate(findings.comparison.flips(), 1):
        typer.echo(f"{', ' if count > 1 else ''}{flip.line()}", nl=False)
    typer.echo(f'], "flip_count": {count}}}')
