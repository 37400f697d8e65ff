"""Kinds of jobs: the fields by which stages decide, and messages for verbs that a kind does not have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from hpcjobs import plugins
from hpcjobs.errors import ConfigError, UsageError, did_you_mean
from hpcjobs.run_folder.files import read_json
from hpcjobs.run_folder.paths import RunPaths

Unit = Literal["answers", "steps", "none"]


@dataclass(frozen=True, kw_only=True)
class JobKind:
    """A kind of job: the word after `hpcjobs submit`. What a stage does for it is in the stage's `by_kind.py`.

    `unit`: what a run counts. Answers come from chunks that ranks claim from the ledger; steps are done by all ranks
    together; with `none` only the exit of the ranks counts. `article`: a or an. `scored`: its answers need metrics.
    `program`: each rank runs the user's own program, without a model. `saves`: what a rank had in hand when it was
    drained is saved, so that such a start was not in vain. `template`: the script in sbatch/ that runs it by hand, if
    any. `refusals`: verbs that it does not have, each with a message; `{run}` is the run's name.
    """

    name: str
    unit: Unit = "none"
    article: str = "a"
    scored: bool = False
    program: bool = False
    saves: bool = False
    template: str | None = None
    refusals: Mapping[str, str] = field(default_factory=dict)

    def has(self, verb: str) -> bool:
        """Whether a run of this kind has `verb`."""
        return verb not in self.refusals

    def check(self, verb: str, run: str) -> None:
        """Raise a UsageError if a run of this kind does not have the verb."""
        if not self.has(verb):
            raise UsageError(self.refusals[verb].format(run=run))

    @property
    def alone(self) -> bool:
        """Whether it runs one program, of which only the end of the ranks counts."""
        return self.program and self.unit == "none"

    @property
    def counted(self) -> str:
        """The unit, for people."""
        return {"answers": "samples", "steps": "steps", "none": "ranks"}[self.unit]

    def __str__(self) -> str:
        return f"{self.article} {self.name} run"


EVAL = JobKind(name="eval", unit="answers", article="an", scored=True, template="eval.sbatch")
GENERATE = JobKind(name="generate", unit="answers", template="eval.sbatch")
TRAIN = JobKind(
    name="train", unit="steps", template="train.sbatch", refusals={
        "join": "{run} is a train run: its ranks go in step, nobody can join them; cancel, then resume",
        "verify": "verify compares answers, and a training has none: run it at both world sizes, then hpcjobs compare "
        "A B holds their losses and samples against each other step by step",
    },
)  # fmt: skip
SCRIPT = JobKind(
    name="script", program=True, refusals={
        "merge": "{run} is a script run: it has no samples to merge; see hpcjobs status and logs",
        "join": "{run} is a script run: its ranks are fixed, nobody can join them",
    },
)  # fmt: skip
SWEEP = JobKind(
    name="sweep", unit="answers", program=True, refusals={
        "verify": "verify compares answers of a model; {run} is a sweep: see its results.parquet",
    },
)  # fmt: skip
MAP = JobKind(
    name="map", unit="answers", program=True, saves=True, refusals={
        "verify": "verify compares answers of a model; {run} is a map of Python functions: see its jobs/",
    },
)  # fmt: skip
KINDS: dict[str, JobKind] = {kind.name: kind for kind in (EVAL, GENERATE, TRAIN, SCRIPT, SWEEP, MAP)}
BUILT_IN = frozenset(KINDS)
EVAL_OF_IT = "<its eval>"


def add_kind(kind: JobKind) -> None:
    """Add a kind from another package; its entry point in `hpcjobs.jobs` calls this, once per process that needs it.

    The same function adds to the tables of stages: PLANNERS of plan/by_kind.py, RANKS of worker/by_kind.py, and what
    else the kind has. See CONTRIBUTING.
    """
    KINDS[kind.name] = kind


def find_kind(name: str) -> JobKind:
    """The kind of job called `name`, of hpcjobs or an installed package. Raises a UsageError if there is none."""
    if name in KINDS:
        return KINDS[name]
    others = plugins.registered(plugins.JOBS)
    if name not in others:
        known = [*KINDS, *others]
        raise UsageError(f"no job {name!r}{did_you_mean(name, known)}; there are: {', '.join(known)}")
    plugins.load(plugins.JOBS, name)()
    if name not in KINDS:
        raise ConfigError(f"{others[name].value} is registered as {plugins.JOBS} {name!r} and adds no such kind")
    return KINDS[name]


def kind_of(paths: RunPaths) -> JobKind:
    """The kind of a run."""
    return find_kind(str(read_json(paths.plan)["job"]))


def check_answers(paths: RunPaths, verb: str) -> None:
    """A UsageError where a run has no answers that `verb` could work on; it names the run that has."""
    kind = kind_of(paths)
    if kind.unit != "answers":
        where = _eval_of(paths, [verb, EVAL_OF_IT]) if kind.unit == "steps" else f"see hpcjobs logs {paths.root}"
        raise UsageError(f"{paths.root} is {kind}: it has no samples to {verb}; {where}")


def unit_of_both(a: RunPaths, b: RunPaths) -> Unit:
    """The unit by which two runs are compared. Raises a UsageError if they differ, or count nothing."""
    kinds = kind_of(a), kind_of(b)
    for paths, kind in zip((a, b), kinds, strict=True):
        if kind.program and kind.unit == "answers":
            raise UsageError(f"{paths.root} is {kind}, which has no scores to compare: see its results.parquet")
        if kind.unit == "none":
            check_answers(paths, "compare")
    if kinds[0].unit == kinds[1].unit:
        return kinds[0].unit
    trained = a if kinds[0].unit == "steps" else b
    words = ["compare", *(EVAL_OF_IT if paths is trained else str(paths.root) for paths in (a, b))]
    both = "; ".join(f"{paths.root} is {kind}" for paths, kind in zip((a, b), kinds, strict=True))
    raise UsageError(f"compare takes two runs of a kind: {both}; {_eval_of(trained, words)}")


def _eval_of(trained: RunPaths, words: Sequence[str]) -> str:
    """Where the answers of the model are that a train run has made, and the next command.

    `words` are the command's, with EVAL_OF_IT for the eval's run.
    """
    after = trained.eval_of()
    if RunPaths(after).plan.is_file():
        command = " ".join(str(after) if word == EVAL_OF_IT else word for word in words)
        return f"those of its model are in {after}; next: hpcjobs {command}"
    if trained.then_eval.exists():
        return f"an eval of its model starts when it is complete; next: hpcjobs status {trained.root}"
    return f"its model has to answer some first; next: hpcjobs submit eval --model {trained.model}"
