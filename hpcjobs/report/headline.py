"""What the page says first: is this the run's result, or not yet?"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.run_state import RunState


@dataclass(frozen=True)
class Headline:
    """`kind` is complete, incomplete or pending; `command` what to type next ('' where nothing is to be done)."""

    kind: RunState
    word: str
    text: str
    command: str = ""


def command(verb: str, paths: RunPaths) -> str:
    """The command to type next, for a shell."""
    return f"hpcjobs {verb} {shlex.quote(str(paths.root))}"
