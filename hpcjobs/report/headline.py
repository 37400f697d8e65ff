"""The headline of the page: whether the run is complete."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.run_state import RunState


@dataclass(frozen=True)
class Headline:
    """`kind` is complete, incomplete, failed or pending; `command` is the next command ('' if there is none).

    `remark` stands beside each score.
    """

    kind: RunState
    word: str
    text: str
    command: str = ""
    remark: str = ""


def command(verb: str, paths: RunPaths) -> str:
    """The next command, quoted for a shell. `verb` may have flags."""
    name, _, flags = verb.partition(" ")
    return f"hpcjobs {name} {shlex.quote(str(paths.root))}" + (f" {flags}" if flags else "")
