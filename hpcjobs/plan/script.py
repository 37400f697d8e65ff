"""Plan `submit script`: a program that runs on every rank."""

from __future__ import annotations

import os
from pathlib import Path

from hpcjobs.config.schema import Config
from hpcjobs.config.shape import shape_of
from hpcjobs.errors import UsageError
from hpcjobs.masking import hidden_names, hide_in_words
from hpcjobs.plan.draft import Draft, draft_run
from hpcjobs.plan.user_code import program_code


def make_script_plan(config: Config, argv: list[str], folder: Path | None = None) -> Draft:
    """Plan `submit script`. Raises a UsageError if the program does not exist."""
    if not argv or argv == ["-m"]:
        raise UsageError("nothing to run: hpcjobs submit script --nodes 2 -- prog.py args, or -- -m module args")
    if not argv[0].startswith("-") and not Path(argv[0]).is_file():
        raise UsageError(f"script {argv[0]} does not exist: submit script runs a Python file, or -m module")
    shape, kept = shape_of(config.cluster, 1, script=True), dict[str, str]()

    def keep(secret: str) -> str:
        name = kept.setdefault(secret, f"HPCJOBS_SECRET_{len(kept) + 1}")
        os.environ[name] = secret  # the jobs get it as they get the rest of the environment
        return name

    argv = hide_in_words(argv, keep)
    hidden = hidden_names(argv)
    note = f"the command's secrets stand in the environment alone, which resume needs too: {', '.join(hidden)}"
    return draft_run(
        "script", config, folder, shape, lambda run: program_code(argv, Path.cwd(), run), argv=argv,
        notes=[note] if hidden else [],
    )  # fmt: skip
