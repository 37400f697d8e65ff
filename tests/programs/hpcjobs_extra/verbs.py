"""A verb, on a command line that has all of hpcjobs' own."""

from __future__ import annotations

import sys

import typer

from hpcjobs.cli.app import app
from hpcjobs.cli.flags import Json, RunName


@app.command()
def ranks(run: RunName = "last", json_: Json = False) -> None:
    """How many ranks a run was planned for."""
    import json

    from hpcjobs.run_folder.paths import find_run
    from hpcjobs.run_folder.plan import Plan

    number = Plan.read(find_run(run).plan).shape.ranks
    typer.echo(json.dumps({"ranks": number}) if json_ else f"{number} ranks")


def main() -> None:
    """hpcjobs, with `ranks`."""
    from hpcjobs.cli import main

    sys.exit(main())
