"""The data of a page."""

from __future__ import annotations

from dataclasses import dataclass, field

from hpcjobs.config import Config
from hpcjobs.report.activity import Activity
from hpcjobs.report.curve import CurveDrawing
from hpcjobs.report.samples import Samples
from hpcjobs.run_folder.metrics_file import MetricsFile
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan
from hpcjobs.run_folder.submission import Launch

# Label, value and detail of a number that one looks for first.
Tile = tuple[str, str, str]


@dataclass(frozen=True)
class Content:
    """What only some kinds of jobs have: samples, or a curve; `notes` lists what could not be read."""

    samples: Samples | None = None
    curve: CurveDrawing | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """The content of a run folder."""

    paths: RunPaths
    plan: Plan
    config: Config
    metrics: MetricsFile | None
    launches: list[Launch]
    activities: list[Activity]
    content: Content
    notes: list[str]
