"""The command line: `python -m hpcjobs` and `hpcjobs`."""

from hpcjobs.cli import compare, inspect, submit
from hpcjobs.cli.app import app, main

__all__ = ["app", "compare", "inspect", "main", "submit"]
