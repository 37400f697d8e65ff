"""The parts of a run's page, by kind of job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hpcjobs.config import Config
from hpcjobs.report import eval, script, train
from hpcjobs.report.facts import Content, RunFacts, Tile
from hpcjobs.report.headline import Headline
from hpcjobs.run_folder.job_kinds import JobKind
from hpcjobs.run_folder.metrics_file import MetricsFile
from hpcjobs.run_folder.paths import RunPaths


@dataclass(frozen=True)
class JobPage:
    """`content`: what the page has beside ranks and scores; `headline`: its first line; `tiles`: the numbers below it.
    """

    content: Callable[[RunPaths, Config, MetricsFile | None], Content]
    headline: Callable[[RunFacts], Headline]
    tiles: Callable[[RunFacts], list[Tile]]


_ANSWERS = JobPage(eval.content, eval.headline, eval.tiles)
_RANKS = JobPage(script.content, script.headline, script.tiles)
PAGES: dict[str, JobPage] = {
    "eval": _ANSWERS, "generate": _ANSWERS, "sweep": _ANSWERS, "map": _ANSWERS,
    "train": JobPage(train.content, train.headline, train.tiles),
}  # fmt: skip


def page_of(kind: JobKind) -> JobPage:
    """The page of a kind of job; for kinds without an entry, its ranks only."""
    return PAGES.get(kind.name, _RANKS)
