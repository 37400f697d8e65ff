"""Kinds of runs: what has answers and what has steps, and what to type where a verb is for the other kind."""

from __future__ import annotations

from typing import Literal

from hpcjobs.errors import UsageError
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.paths import RunPaths

JOBS = ("eval", "generate", "train", "script")

Kind = Literal["answers", "steps"]


def job_of(paths: RunPaths) -> str:
    """eval, generate, train or script."""
    return str(read_json(paths.plan)["job"])


def check_answers(paths: RunPaths, verb: str) -> None:
    """A UsageError where a run has no answers that `verb` could work on; it names the run that has."""
    job = job_of(paths)
    if job == "script":
        raise UsageError(f"{paths.root} is a script run: it has no samples to {verb}; see hpcjobs logs {paths.root}")
    if job == "train":
        raise UsageError(f"{paths.root} is a train run: it has no samples to {verb}; {_eval_of(paths, verb)}")


def kind_of_both(a: RunPaths, b: RunPaths) -> Kind:
    """What two runs may be compared by; a UsageError where it is not the same, or a script's."""
    for paths in (a, b):
        if job_of(paths) == "script":
            check_answers(paths, "compare")
    jobs = job_of(a), job_of(b)
    if (jobs[0] == "train") == (jobs[1] == "train"):
        return "steps" if jobs[0] == "train" else "answers"
    trained, other = (a, b) if jobs[0] == "train" else (b, a)
    said = "; ".join(f"{paths.root} is {_article(job)} run" for paths, job in zip((a, b), jobs, strict=True))
    raise UsageError(f"compare takes two runs of a kind: {said}; {_eval_of(trained, 'compare', str(other.root))}")


def _article(job: str) -> str:
    return f"an {job}" if job == "eval" else f"a {job}"


def _eval_of(trained: RunPaths, verb: str, *more: str) -> str:
    """Where the answers of the model are that a train run has made, and the next command."""
    after = trained.eval_of()
    if RunPaths(after).plan.is_file():
        return f"those of its model are in {after}; next: {' '.join(['hpcjobs', verb, str(after), *more])}"
    if trained.then_eval.exists():
        return f"an eval of its model starts when it is complete; next: hpcjobs status {trained.root}"
    return f"its model has to answer some first; next: hpcjobs submit eval --model {trained.model}"
