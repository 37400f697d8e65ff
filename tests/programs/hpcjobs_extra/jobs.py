"""Kinds of jobs: one of which only the ranks' ends count, and one that asks, scores and merges as eval does."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from hpcjobs.config import Config
from hpcjobs.config.shape import shape_of
from hpcjobs.distributed.work import Work
from hpcjobs.plan.draft import Draft, draft_run
from hpcjobs.run_folder.job_kinds import JobKind, add_kind
from hpcjobs.run_folder.snapshot import Snapshot

log = logging.getLogger("hpcjobs.extra")


def add_count() -> None:
    """`hpcjobs submit count`: each rank counts the rows of the data set."""
    from hpcjobs.plan.by_kind import PLANNERS
    from hpcjobs.worker.by_kind import RANKS

    nothing = "{run} is a count run: there is nothing to "
    add_kind(JobKind(name="count", refusals={verb: nothing + verb for verb in ("merge", "resume", "join")}))
    PLANNERS["count"] = plan_count
    RANKS["count"] = count_rows


def plan_count(config: Config, argv: Sequence[str], folder: Path | None) -> Draft:
    shape = shape_of(config.cluster, 1)
    return draft_run("count", config, folder, shape, lambda run: Snapshot())


def count_rows(work: Work) -> None:
    from hpcjobs.tasks.datasets import load_table

    rows = len(load_table(work.config.data))
    (work.paths.root / f"rows-{work.rank.rank}.txt").write_text(f"{rows}\n")
    log.info("%d rows", rows)


def add_quiz() -> None:
    """`hpcjobs submit quiz`: an eval, of which the questions come in capitals."""
    from hpcjobs.commands.carry_on import REST
    from hpcjobs.commands.counts import COUNTS
    from hpcjobs.merge.by_kind import MERGES
    from hpcjobs.plan.by_kind import PLANNERS
    from hpcjobs.report.by_kind import PAGES
    from hpcjobs.worker.by_kind import RANKS

    add_kind(JobKind(name="quiz", unit="answers", scored=True))
    PLANNERS["quiz"] = plan_quiz
    RANKS["quiz"], MERGES["quiz"], PAGES["quiz"] = RANKS["eval"], MERGES["eval"], PAGES["eval"]
    COUNTS["quiz"], REST["quiz"] = COUNTS["eval"], REST["eval"]


def plan_quiz(config: Config, argv: Sequence[str], folder: Path | None) -> Draft:
    from hpcjobs.plan.eval import make_plan

    task = config.task.model_copy(
        update={"prompt": "{% filter upper %}" + (config.task.prompt or "") + "{% endfilter %}"}
    )
    return make_plan("quiz", config.model_copy(update={"task": task}), folder)
