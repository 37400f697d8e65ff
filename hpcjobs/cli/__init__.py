"""The command line: `python -m hpcjobs` and `hpcjobs`."""

from hpcjobs.cli.app import app, main

__all__ = ["app", "main"]
