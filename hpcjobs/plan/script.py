"""Plan `submit script`: a program that runs on every rank."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from hpcjobs.config.schema import Config
from hpcjobs.config.shape import shape_of
from hpcjobs.errors import UsageError
from hpcjobs.masking import hidden_names, hide_in_words
from hpcjobs.plan.command import Command, read_command
from hpcjobs.plan.draft import Draft, draft_run
from hpcjobs.plan.user_code import meets_itself, program_code
from hpcjobs.run_folder.snapshot import Snapshot


def make_script_plan(config: Config, argv: list[str], folder: Path | None = None) -> Draft:
    """Plan `submit script`. Raises a UsageError if the program does not exist, or cannot run."""
    if not argv:
        raise UsageError("nothing to run: hpcjobs submit script --nodes 2 -- prog.py args, or -- any command")
    cluster = config.cluster
    command = read_command(argv, bool(cluster.container or cluster.modules or cluster.setup), cluster.env.get("PATH"))
    config, notes = (config, list[str]()) if config.sweep is not None else _one_launcher(config, command)
    shape, kept = shape_of(config.cluster, 1, script=config.sweep is None), dict[str, str]()

    def keep(secret: str) -> str:
        name = kept.setdefault(secret, f"HPCJOBS_SECRET_{len(kept) + 1}")
        os.environ[name] = secret  # the jobs get it as they get the rest of the environment
        return name

    argv = hide_in_words(list(command.argv), keep)
    hidden = hidden_names(argv)
    if hidden:
        notes.append(
            f"the command's secrets stand in the environment alone, which resume needs too: {', '.join(hidden)}"
        )
    alone = command.python and meets_itself(argv, Path.cwd())
    if alone:
        notes.append("the program sets RANK, MASTER_ADDR and the like itself (submitit's TorchDistributedEnvironment)")
    if config.sweep is not None:
        from hpcjobs.plan.sweep import make_sweep_plan

        code = _code(command, argv, alone, (folder or Path("runs")).absolute())
        return make_sweep_plan(config, command, argv, code, folder, notes)
    return draft_run(
        "script", config, folder, shape, lambda run: _code(command, argv, alone, run), argv=argv, notes=notes
    )


def _code(command: Command, argv: list[str], alone: bool, run: Path) -> Snapshot:
    if command.python:
        return replace(program_code(argv, Path.cwd(), run), meets_itself=alone)
    own = "/" in argv[0]  # else it is one of the system's
    return Snapshot(command=True, note=f"{argv[0]} is not copied: what it is when the job starts is what runs" * own)


def _one_launcher(config: Config, command: Command) -> tuple[Config, list[str]]:
    """One task a node for what starts the ranks of a node itself."""
    if command.launcher is None or config.cluster.ntasks_per_node is not None:
        return config, []
    cluster = config.cluster.model_copy(update={"ntasks_per_node": 1})
    note = f"{command.launcher} starts the ranks of a node itself: one task a node (--ntasks-per-node 1)"
    return config.model_copy(update={"cluster": cluster}), [note]
