"""hpcjobs in Python: `submit`, `runs`, and a Run, which does what the verbs do."""

from __future__ import annotations

import html
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from hpcjobs.errors import HpcJobsError, UsageError, did_you_mean
from hpcjobs.run_folder.job_kinds import check_answers, kind_of
from hpcjobs.run_folder.paths import RunPaths, find_run, list_runs, runs_root

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

    from hpcjobs.commands.status import Status
    from hpcjobs.run_folder.metrics_file import MetricsFile, Summary

# The flags that a resume and a join take: those of the shape.
_SHAPE = (
    "nodes", "gpus", "gpus_per_node", "ntasks_per_node", "cpus_per_task", "array", "mem", "time", "partition",
    "account", "qos", "constraint", "reservation", "executor",
)  # fmt: skip
# Structs of results.parquet whose fields become columns, and how the columns are named.
_FLAT = {"scores": "score_", "input": "input_", "statistics": "statistics_"}


class FlagValues(TypedDict, total=False):
    """The keyword arguments that are flags of `hpcjobs submit`, under the same names."""

    name: str
    model: str
    data: str
    max_samples: int
    nodes: int
    gpus: int
    gpus_per_node: int
    ntasks_per_node: int
    cpus_per_task: int
    array: int
    restarts: int
    spares: int
    metric: Sequence[str]
    mem: str
    time: str
    partition: str
    account: str
    qos: str
    constraint: str
    reservation: str
    exclusive: bool
    requeue: bool
    executor: str


def submit(
    config: Path | str | Mapping[str, object] | None = None,
    *,
    job: str = "eval",
    argv: Sequence[object] = (),
    sets: Mapping[str, object] | None = None,
    profile: str | None = None,
    sbatch: Mapping[str, object] | None = None,
    run_dir: Path | str | None = None,
    **flags: Unpack[FlagValues],
) -> Run:
    """Plan a run, write its folder, and queue or start it: `hpcjobs submit` without a question.

    `config` is a YAML file or its sections as a mapping; without one, the config that ships for the `job` (eval,
    generate, train or script). `sets` are single values by dotted key (`{"run.seed": 1}`), `argv` the program of a
    script, `sbatch` further options of sbatch; `flags` are those of the command, such as `nodes=2`. With
    `executor="debug"` it runs here, and is over on return.

    Raises a UsageError or ConfigError before anything is written, and a LaunchError, with nothing left, if Slurm
    refuses the job.
    """
    from hpcjobs.commands.submit import Flags, SubmitOptions, draft_of, start
    from hpcjobs.config.layers import Layer, dotted_layer

    if config is not None and not isinstance(config, str | Path | Mapping):
        raise UsageError(f"the config is a YAML file or a mapping of its sections, not a {type(config).__name__}")
    given = Layer(_plain(config)) if isinstance(config, Mapping) else None if config is None else Path(config)
    _check_flags(flags, FlagValues.__annotations__)
    options = SubmitOptions(
        job=job,
        config=given,
        profile=profile,
        sets=[],
        flags=Flags(**flags),
        sbatch=_sbatch_words(sbatch),
        argv=_words_of(argv),
        run_dir=None if run_dir is None else Path(run_dir),
        layers=[dotted_layer(_mapping("sets", sets), "sets")],
    )
    draft, _ = draft_of(options)
    start(draft)
    return Run(draft.paths.root)


def runs(root: Path | str | None = None) -> list[Run]:
    """The runs in the folder `root`, by default HPCJOBS_RUNS or runs/ here; oldest first.

    Raises a UsageError for a root that is no folder.
    """
    if root is not None and not Path(root).is_dir():
        raise UsageError(f"{root} is no folder of runs")
    return [Run(paths.root) for paths in list_runs(runs_root() if root is None else Path(root))]


@dataclass(frozen=True, init=False, repr=False)
class Run:
    """A run: a folder, a name under the runs root, or "last". Raises a UsageError if there is none.

    It holds no state: each call reads what the run's folder, and the queue, say by then.
    """

    folder: Path

    def __init__(self, run: Path | str) -> None:
        object.__setattr__(self, "folder", find_run(str(run)).root)

    @property
    def name(self) -> str:
        """The run's name."""
        return self.folder.name

    def status(self) -> Status:
        """State, progress, ranks, jobs and the first error, now. Slurm is asked once."""
        from hpcjobs.commands.status import read_status

        return read_status(self._paths)

    def wait(self, timeout: float | None = None) -> Status:
        """Wait until the run is over, however it ends: `status.state` says how.

        Raises a TimeoutError after `timeout` seconds; the run goes on. Raises a LaunchError if Slurm has not answered
        for an hour.
        """
        from hpcjobs.commands.wait import wait

        found: list[Status] = []
        deadline = math.inf if timeout is None else time.monotonic() + timeout

        def look(status: Status) -> None:
            found[:] = [status]
            if time.monotonic() > deadline and (status.going or not status.over):
                done = f"{status.done} of {status.rows}"
                raise TimeoutError(f"{status.run} is {status.state} after {timeout:g} s: {done}")

        wait(self._paths, look, deadline)
        return found[0]

    def cancel(self) -> list[str]:
        """End the jobs of the run; returns what was ended. Finished samples are kept: `resume` goes on from them."""
        from hpcjobs.commands.cancel import cancel

        return cancel(self._paths)

    def resume(
        self,
        *,
        errors: bool = False,
        allow_changed: bool = False,
        sbatch: Mapping[str, object] | None = None,
        **flags: Unpack[FlagValues],
    ) -> bool:
        """Run what is missing, on another shape if `flags` say so; with `errors` also what has failed.

        False if nothing is missing. Raises a UsageError if the run is still going.
        """
        from hpcjobs.commands.resume import resume
        from hpcjobs.commands.submit import Flags

        _check_flags(flags, _SHAPE)
        return resume(self._paths, Flags(**flags), _sbatch_words(sbatch), _quiet, errors, allow_changed) is not None

    def join(self, *, sbatch: Mapping[str, object] | None = None, **flags: Unpack[FlagValues]) -> None:
        """Add ranks to the run while it goes on. Raises a UsageError if it does not."""
        from hpcjobs.commands.resume import join
        from hpcjobs.commands.submit import Flags

        _check_flags(flags, _SHAPE)
        join(self._paths, Flags(**flags), _sbatch_words(sbatch), _quiet)

    def merge(self) -> MetricsFile:
        """Merge what there is and write the report; the run's own merge does so, too. Safe at any time."""
        from hpcjobs.commands.merge import check_replaced, merge_and_report

        check_replaced(merge_and_report(self._paths))
        return self._metrics_file()

    def score(self, *metrics: str, target: str | None = None) -> MetricsFile:
        """Compute metrics again, those named instead of the run's, from the answers that stand."""
        from hpcjobs.commands.merge import try_report
        from hpcjobs.merge.score import rescore
        from hpcjobs.plugins import contained
        from hpcjobs.run_folder.metrics_file import MetricsFile

        with contained():
            values = rescore(self._paths, list(metrics), target)
        try_report(self._paths)
        return MetricsFile.of(values)

    @property
    def metrics(self) -> Mapping[str, Summary]:
        """Value, standard error, 95 % interval and n of each metric, as merged. Raises a UsageError before a merge."""
        return self._metrics_file().metrics

    def results(self) -> datasets.Dataset:
        """The merged table, a row a sample in input order, with flat columns (`completion`, `score_f1`,
        `input_question`).

        Columns that no Arrow type holds exactly are JSON texts here; `samples` has their values. Raises a UsageError
        before a merge.
        """
        import datasets
        import pyarrow.parquet as pq

        from hpcjobs.run_folder.results_file import readable

        with readable(self._paths):
            table = _flat(pq.read_table(self._results(), memory_map=True))
        return datasets.Dataset(datasets.table.InMemoryTable(table))

    def samples(self) -> Iterator[dict[str, Any]]:
        """The rows of `results`, one after another, as Python values; of any number in little memory."""
        import pyarrow.parquet as pq

        from hpcjobs.run_folder.json_columns import python_rows
        from hpcjobs.run_folder.results_file import readable

        with readable(self._paths), pq.ParquetFile(self._results()) as file:
            for batch in file.iter_batches(1024):
                yield from (_flat_row(row) for row in python_rows(batch))

    @property
    def report(self) -> Path:
        """The file of the report, which a merge writes."""
        return self._paths.report

    @property
    def _paths(self) -> RunPaths:
        return RunPaths(self.folder)

    def _results(self) -> Path:
        check_answers(self._paths, "read")
        if not self._paths.results.exists():
            raise UsageError(f"{self.name} has no results yet: run.wait(), or run.merge() for what there is")
        return self._paths.results

    def _metrics_file(self) -> MetricsFile:
        from hpcjobs.commands.damage import naming
        from hpcjobs.run_folder.metrics_file import MetricsFile

        kind_of(self._paths).check("merge", str(self.folder))
        if not self._paths.metrics.exists():
            raise UsageError(f"{self.name} has no metrics yet: run.wait(), or run.merge() for what there is")
        with naming(self._paths):
            return MetricsFile.read(self._paths.metrics)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    def _repr_html_(self) -> str:
        """The state and the metrics, for notebooks. What is a model's or a user's is text there, never markup."""
        try:
            status = self.status()
        except HpcJobsError as error:
            return f"<p><b>{html.escape(self.name)}</b> {html.escape(str(error))}</p>"
        rows = [("state", str(status.state)), ("done", f"{status.done} of {status.rows}"), ("folder", str(self.folder))]
        rows += [("error", status.first_error)] if status.first_error else []
        rows += [("note", note) for note in status.notes]
        rows += [(name, _value(one)) for name, one in (status.metrics.metrics if status.metrics else {}).items()]
        cells = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>" for name, text in rows)
        return f"<table><caption>{html.escape(self.name)}</caption>{cells}</table>"


def _value(one: Summary) -> str:
    if one["value"] is None:
        return f"no value (n = {one['n']})"
    interval = f" [{one['ci95'][0]:.4g}, {one['ci95'][1]:.4g}]" if one["ci95"] else ""
    return f"{one['value']:.4g}{interval} (n = {one['n']})"


def _flat(table: pa.Table) -> pa.Table:
    """The table with the fields of scores, statistics and input as columns."""
    import pyarrow as pa

    columns: dict[str, pa.ChunkedArray] = {}
    for field, column in zip(table.schema, table.columns, strict=True):
        if field.name in _FLAT and pa.types.is_struct(field.type):
            parts = pa.table([column], names=["x"]).flatten().columns
            columns |= {_FLAT[field.name] + child.name: part for child, part in zip(field.type, parts, strict=True)}
        else:
            columns[field.name] = column
    return pa.table(columns)


def _flat_row(row: dict[str, object]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if name in _FLAT and isinstance(value, dict):
            flat |= {_FLAT[name] + key: inner for key, inner in value.items()}
        else:
            flat[name] = value
    return flat


def _plain(config: Mapping[str, object]) -> dict[str, Any]:
    """The sections as plain dicts, which layers are merged from."""
    return {key: _plain(value) if isinstance(value, Mapping) else value for key, value in config.items()}


def _check_flags(flags: Mapping[str, object], known: Iterable[str]) -> None:
    """Raise a UsageError for an argument that the verb does not have."""
    for name in flags:
        if name not in known:
            raise UsageError(f"no argument {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}")


def _mapping(name: str, given: object) -> Mapping[str, object]:
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise UsageError(f"{name} is a mapping, such as {{{'run.seed' if name == 'sets' else 'comment'!r}: 1}}")
    return given


def _sbatch_words(sbatch: Mapping[str, object] | None) -> list[str]:
    """sbatch's options as the command takes them: True is an option without a value; None and False leave it out."""
    given = [(key, value) for key, value in _mapping("sbatch", sbatch).items() if value not in (None, False)]
    return [key if value is True else f"{key}={value}" for key, value in given]


def _words_of(argv: Sequence[object]) -> list[str]:
    if isinstance(argv, str | bytes):
        raise UsageError(f"argv is a list of words, such as {str(argv).split()!r}")
    return [str(word) for word in argv]


def _quiet(text: str) -> None:
    """What a verb says on the way is in the status."""
