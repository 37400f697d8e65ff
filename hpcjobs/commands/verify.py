"""verify: plan, run and compare one job at several world sizes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from hpcjobs.commands.cancel import cancel
from hpcjobs.commands.status import Status, read_status
from hpcjobs.commands.submit import SubmitOptions, draft_of, flag_layer, start
from hpcjobs.commands.verify_verdict import VerifyVerdict
from hpcjobs.commands.wait import wait
from hpcjobs.compare.flips import keep_first, write_flips
from hpcjobs.compare.world_sizes import Mismatch, WorldSizeComparison
from hpcjobs.config import Config
from hpcjobs.config.layers import set_layer
from hpcjobs.config.resolve import read_config, resolve
from hpcjobs.errors import DataError, LaunchError, UsageError, did_you_mean
from hpcjobs.launch.launch import executor_of
from hpcjobs.plan.draft import Draft
from hpcjobs.run_folder.job_kinds import EVAL, KINDS
from hpcjobs.run_folder.paths import RunPaths, runs_root


def parse_sizes(text: str) -> list[int]:
    """The numbers in '1,2,4'. Raises a UsageError unless they are two or more different positive integers."""
    words = [word.strip() for word in text.split(",")]
    wrong = next((word for word in words if not re.fullmatch(r"[1-9][0-9]{0,5}", word, re.ASCII)), None)
    if wrong is not None:
        raise UsageError(f"--world-sizes {text!r}: {wrong!r} is no number of ranks; write them as 1,2,4")
    sizes = [int(word) for word in words]
    twice = next((size for size in sizes if sizes.count(size) > 1), None)
    if twice or len(sizes) < 2:
        why = f"{twice} stands twice" if twice else "there is nothing to compare with"
        raise UsageError(f"--world-sizes {text!r}: {why}; name two or more different ones, such as 1,2,4")
    return sizes


def plan_runs(options: SubmitOptions, sizes: Sequence[int]) -> dict[int, Draft]:
    """The checked plans by world size, in `options.run_dir` or a new folder under the runs root. Nothing is written
    yet.
    """
    _check_order(options)
    upper = [set_layer(options.sets), *options.layers, flag_layer(options.flags, options.sbatch)]
    config, _ = resolve(options.job, options.config, options.profile, upper)
    folder = options.run_dir or _new_folder(config)
    drafts: dict[int, Draft] = {}
    for size in sizes:
        shape = shape_flags(config, size)
        flags = dataclasses.replace(
            options.flags, nodes=shape["nodes"], gpus=shape["gpus"], ntasks_per_node=shape["ntasks_per_node"]
        )
        sets = [*options.sets, "cluster.array=null"]  # one job, however many workers the config would have
        draft, _ = draft_of(dataclasses.replace(options, sets=sets, flags=flags, run_dir=folder / f"w{size}"))
        drafts[size] = _sharing(next(iter(drafts.values()), draft), draft)
    return drafts


def _check_order(options: SubmitOptions) -> None:
    """Raise a UsageError for what verify cannot run: it needs a config, and compares answers."""
    if kind := KINDS.get(options.job):
        kind.check("verify", options.job)
    fit = [kind.name for kind in KINDS.values() if kind.unit == "answers"]
    if options.job not in fit:
        raise UsageError(f"verify has no job {options.job!r}{did_you_mean(options.job, fit)}; it has: {', '.join(fit)}")
    if isinstance(options.config, Path) and not options.config.is_file():
        for folder in (options.config, runs_root() / options.config):
            if RunPaths(folder).plan.is_file():
                config = RunPaths(folder).config
                raise UsageError(f"verify takes a config, and {options.config} is a run: that of the run is {config}")


def shape_flags(config: Config, size: int) -> dict[str, int]:
    """The flags of a world size: on GPUs if the config is; on its nodes if they divide the ranks, else on one."""
    nodes = config.cluster.nodes if size % config.cluster.nodes == 0 else 1
    on_gpus = bool(config.cluster.gpus or config.cluster.gpus_per_node)
    gpus = size * config.model.gpus_per_rank if on_gpus else 0
    return {"nodes": nodes, "gpus": gpus, "ntasks_per_node": size // nodes}


def _new_folder(config: Config) -> Path:
    root = Path(config.run.root).expanduser() if config.run.root else runs_root()
    return root / f"verify-{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(2).hex()}"


def _sharing(first: Draft, draft: Draft) -> Draft:
    """`draft` with the rows of `first`, which are equal, so that they are in memory only once."""
    if draft.plan.data.sha256 != first.plan.data.sha256:
        raise DataError(f"data set {draft.plan.data.name} has changed while the runs were planned: type it again")
    return dataclasses.replace(draft, table=first.table, chunks=first.chunks)


def run_all(drafts: dict[int, Draft], progress: Callable[[RunPaths], Callable[[Status], None]]) -> dict[int, RunPaths]:
    """Run the plans until they are over: under Slurm all at once, else one after the other. Empties `drafts`."""
    runs = {size: draft.paths for size, draft in drafts.items()}
    if executor_of(next(iter(drafts.values())).config) == "slurm":
        _queue(drafts)
    for size, paths in runs.items():
        if size in drafts:
            start(drafts.pop(size))
        wait(paths, progress(paths))
    return runs


def _queue(drafts: dict[int, Draft]) -> None:
    """Queue all runs, or none: if one is refused, the earlier ones are cancelled."""
    queued: list[RunPaths] = []
    for size in list(drafts):
        paths = drafts[size].paths
        try:
            start(drafts.pop(size))
        except LaunchError as error:
            for earlier in queued:
                cancel(earlier)
            with contextlib.suppress(OSError):
                paths.root.parent.rmdir()
            gone = f"; the runs before it were cancelled: {', '.join(str(run.root) for run in queued)}"
            raise LaunchError(f"world size {size}: {error}{gone if queued else ''}") from None
        queued.append(paths)


def still_going(runs: Iterable[RunPaths]) -> Iterator[RunPaths]:
    """The runs that were started and are not over."""
    for paths in runs:
        if paths.submission.exists() and not read_status(paths).over:
            yield paths


def judge(runs: dict[int, RunPaths], options: SubmitOptions, keep: int) -> VerifyVerdict:
    """Compare the results of the runs. Flips are written to flips.jsonl beside them; the verdict has the first `keep`.
    """
    states, one = {size: read_status(paths) for size, paths in runs.items()}, next(iter(runs.values()))
    folder, deterministic = one.root.parent, read_config(one.config).run.deterministic
    files = {size: runs[size].results for size in runs if states[size].metrics}
    comparison = WorldSizeComparison(files)
    first = list[Mismatch]()
    found = keep_first(comparison.flips() if len(files) > 1 else (), keep, first)
    again = "the same command again" if options.run_dir is None else "the same command with another --run-dir"
    differ = write_flips(folder / "flips.jsonl", found, again)
    return VerifyVerdict(
        runs=states,
        samples=comparison.samples,
        absent=comparison.absent,
        byte_identical=comparison.byte_identical() if len(files) > 1 else None,
        flips=folder / "flips.jsonl",
        differ=differ,
        first_flips=first,
        deterministic=deterministic,
        next=None if deterministic or not differ else _required(options, runs),
    )


def _required(options: SubmitOptions, sizes: Iterable[int]) -> str:
    """The command that repeats this verify with run.deterministic, which requires identical results."""
    words = ["hpcjobs", "verify", str(options.config), "--world-sizes", ",".join(map(str, sizes))]
    words += [] if options.job == EVAL.name else ["--job", options.job]
    words += [] if options.profile is None else ["--profile", options.profile]
    for name, value in vars(options.flags).items():
        words += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    for assignment in (*options.sets, "run.deterministic=true"):
        words += ["--set", assignment]
    return shlex.join(words)
