"""Two train runs on one HTML page: both curves, the values, and the config keys that differ."""

from __future__ import annotations

import time
from pathlib import Path

import hpcjobs
from hpcjobs.compare.train_findings import TrainFindings, short, story, value_rows
from hpcjobs.report import text
from hpcjobs.report.curve import draw_both
from hpcjobs.report.environment import environment
from hpcjobs.run_folder.files import write_whole


def write_overlay(path: Path, findings: TrainFindings) -> None:
    """Write the findings of compare for two train runs as one self-contained HTML file.

    Raises a DiskFullError; an older file is kept.
    """
    found = findings.comparison
    page = environment().get_template("overlay.html").render(
        sides=[("A", found.a), ("B", found.b)], curve=draw_both(found.a.records, found.b.records),
        rows=list(value_rows(found)), story=list(story(found)), gates=findings.gates,
        config=[(key, short(a), short(b)) for key, (a, b) in found.config.items()],
        warnings=list(findings.warnings()), written=text.stamp(time.time()), version=hpcjobs.__version__,
    )  # fmt: skip
    write_whole(path, page.encode("utf-8", "replace"))
