"""The page of train runs."""

from __future__ import annotations

from hpcjobs.config import Config
from hpcjobs.report.activity import alive_seconds
from hpcjobs.report.curve import draw_curve
from hpcjobs.report.facts import Content, RunFacts, Tile
from hpcjobs.report.headline import Headline, command
from hpcjobs.report.text import count, duration, plural, rate
from hpcjobs.run_folder.metrics_file import MetricsFile
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.run_state import RunState
from hpcjobs.training.steps import read_curve


def content(paths: RunPaths, config: Config, metrics: MetricsFile | None) -> Content:
    """The curve of its steps."""
    steps = read_curve(paths).steps
    return Content(curve=draw_curve([steps[step] for step in sorted(steps)]))


def headline(facts: RunFacts) -> Headline:
    """The headline, from the merge: whether there is a model."""
    if facts.metrics is None:
        text = "The training has not been judged yet."
        return Headline(RunState.PENDING, "NO RESULTS YET", text, command("status", facts.paths))
    counts = facts.metrics.counts
    steps = f"{count(counts.accepted)} of {plural(counts.rows, 'step')}"
    if facts.metrics.complete:
        of = facts.metrics.train and facts.metrics.train.model_step
        which = f", of step {of}, which has the lowest validation loss" if of not in (None, counts.rows) else ""
        return Headline(RunState.COMPLETE, "COMPLETE", f"{steps} are done, and model/ is written{which}.")
    text = f"{steps} are done; there is no final model."
    return Headline(RunState.INCOMPLETE, "INCOMPLETE", text, command("resume", facts.paths))


def tiles(facts: RunFacts) -> list[Tile]:
    """Steps, losses and speed."""
    found: list[Tile] = []
    if facts.metrics and facts.metrics.train:
        counts, train = facts.metrics.counts, facts.metrics.train
        found.append(("steps", count(counts.accepted), f"of {count(counts.rows)}"))
        for name, value in facts.metrics.metrics.items():
            found.append((name.replace("_", " "), f"{value['value']:.4g}", f"step {value['step']}"))
        found.append(("tokens/s", rate(train.tokens_per_s), f"{rate(train.tokens_per_s_per_rank)} a rank"))
    if facts.activities:
        seconds = duration(alive_seconds(facts.activities))
        found.append(("time", seconds, f"on {plural(len(facts.activities), 'rank')}"))
    return found
