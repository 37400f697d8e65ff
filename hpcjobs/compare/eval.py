"""compare: the scores of two merged runs on their common samples, metric by metric, in constant memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hpcjobs.compare.flips import Flip, find_flips, scores
from hpcjobs.compare.pairs import Pairs
from hpcjobs.compare.results import Results
from hpcjobs.compare.statistics import Differences
from hpcjobs.config.resolve import read_config
from hpcjobs.errors import MergeError, UsageError
from hpcjobs.metrics import SCORING
from hpcjobs.metrics.clusters import ClusterCodes, Codes
from hpcjobs.metrics.groups import stored_name
from hpcjobs.metrics.registry import lower_is_better
from hpcjobs.run_folder.job_kinds import check_answers
from hpcjobs.run_folder.metrics_file import Counts, MetricsFile, Summary
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.run_state import RunState
from hpcjobs.run_folder.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two runs: its results and the content of metrics.json. `target` is what the answers were scored
    against, `lower` are the metrics of which lower values are better, `scoring` the version of the rules.
    """

    paths: RunPaths
    results: Results
    verdict: Verdict
    counts: Counts
    model: str
    data: Mapping[str, Any]
    target: str | None
    lower: frozenset[str] = frozenset()
    lm_eval: bool = False
    cluster_by: str | None = None
    revisions: Mapping[str, int] = field(default_factory=dict)
    scoring: int = SCORING
    normalize: Sequence[str] = ()
    summaries: Mapping[str, Summary] = field(default_factory=dict)

    @classmethod
    def read(cls, paths: RunPaths) -> Side:
        """The run as of its last merge. Raises a UsageError if it was never merged, and a MergeError if it is broken.
        """
        check_answers(paths, "compare")
        config = read_config(paths.config)
        for path in (paths.results, paths.metrics):
            if not path.exists():
                raise UsageError(f"{path} does not exist yet; next: hpcjobs merge {paths.root}")
        try:
            file = MetricsFile.read(paths.metrics)
            known, counts = file.provenance, file.counts
            target = known.rescored_with.get("target", config.task.target)
            side = cls(
                paths=paths,
                results=Results(paths.results),
                verdict=file.verdict,
                counts=counts,
                model=known.model["name"],
                data=known.data,
                target=target,
                lower=frozenset(name for name, one in file.metrics.items() if _is_lower(name, one)),
                lm_eval=config.task.type == "lm_eval",
                cluster_by=config.task.cluster_by,
                revisions={name: one.get("revision", 1) for name, one in file.metrics.items()},
                scoring=known.scoring,
                normalize=config.task.normalize,
                summaries=file.metrics,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MergeError(f"{paths.metrics} is broken: {error!r}; next: hpcjobs merge {paths.root}") from None
        if side.results.rows != counts.accepted:
            counted = f"{side.results.rows} rows, and metrics.json counts {counts.accepted}"
            raise MergeError(f"{paths.results} has {counted}; next: hpcjobs merge {paths.root}")
        return side

    @property
    def complete(self) -> bool:
        """Whether the run is a success: every row has its result and its scores, and not too many failed."""
        return self.verdict.state == RunState.COMPLETE

    def is_no_mean(self, metric: str, mean: float, n: int) -> bool:
        """Whether the run's value of a metric is not the mean of its `n` samples, but made of sums, as BLEU is."""
        known = self.summaries.get(metric)
        if known is None or known["value"] is None or known["n"] != n:
            return False
        return not math.isclose(known["value"], mean, rel_tol=1e-9, abs_tol=1e-12)

    def same_data(self, other: Side) -> bool:
        """Whether both runs have the same input rows, by their hash."""
        return bool(self.data["sha256"] == other.data["sha256"])


def _is_lower(name: str, summary: Summary) -> bool:
    """As the run says; the files of earlier versions say nothing, and the name must do."""
    return summary.get("lower_is_better", False) or lower_is_better(name)


@dataclass(frozen=True)
class Comparison:
    """Two runs, their common samples, and the differences B - A of each common metric.

    `other_inputs` counts common samples whose inputs differ in a common column; None if the data is the same.
    """

    a: Side
    b: Side
    pairs: Pairs
    metrics: dict[str, Differences]
    other_inputs: int | None

    @property
    def lower(self) -> frozenset[str]:
        """The metrics of which lower values are better, as either run says."""
        return self.a.lower | self.b.lower

    @property
    def flipped(self) -> list[str]:
        """The binary metrics that differ on some sample."""
        return [name for name, found in self.metrics.items() if found.binary and (found.worse or found.better)]

    def flips(self) -> Iterator[Flip]:
        """The samples on which they differ, in A's order. Reads the tables again."""
        return find_flips(self.pairs, self.flipped) if self.flipped else iter(())


def common_metrics(a: Side, b: Side) -> list[str]:
    """The metrics that both runs have, in A's order. Raises a UsageError if there are none."""
    names = [name for name in a.results.metrics if name in b.results.metrics]
    if not names:
        metrics = (f"{side.paths.root} has {', '.join(side.results.metrics) or 'none'}" for side in (a, b))
        fixed = a.lm_eval or b.lm_eval
        then = "" if fixed else f"; next: hpcjobs score {b.paths.root} --metric NAME"
        raise UsageError(f"no metric is in both runs: {'; '.join(metrics)}{then}")
    return names


def compare(a: Side, b: Side) -> Comparison:
    """Compare two runs sample by sample. Raises a UsageError if they have no metric or no id in common."""
    names, same = common_metrics(a, b), a.same_data(b)
    pairs = Pairs(a.results, b.results, same)
    if not pairs.common:
        raise UsageError(
            f"no id is in both runs: {a.paths.root} has {a.results.rows} samples of {a.data['name']}, "
            f"{b.paths.root} {b.results.rows} of {b.data['name']}"
        )
    metrics, others, clusters = {name: Differences() for name in names}, 0, PairClusters(a.cluster_by, b.cluster_by)
    for one, other in pairs.tables(["scores"] if same and not clusters.column else ["scores", "input"]):
        codes = clusters.of(one, other)
        for name, found in metrics.items():
            found.add(scores(one, name), scores(other, name), codes)
        others += 0 if same else _other_inputs(one, other)
    return Comparison(a, b, pairs, metrics, None if same else others)


class PairClusters:
    """The clusters of pairs by the column that A names in `task.cluster_by`, else B; taken from A's rows, else B's."""

    def __init__(self, a: str | None, b: str | None) -> None:
        self.column, self._codes = a or b, ClusterCodes()

    def of(self, one: pa.Table, other: pa.Table) -> Codes | None:
        """The number of each pair's cluster; None without a column. Raises a UsageError if neither run has it."""
        if self.column is None:
            return None
        for table in (one, other):
            fields = table.schema.field("input").type if "input" in table.column_names else pa.struct([])
            place = fields.get_field_index(stored_name(self.column, [field.name for field in fields]))
            if place >= 0:
                return self._codes.of(pc.struct_field(table.column("input"), [place]).combine_chunks())
        raise UsageError(f"task.cluster_by: no column {self.column!r} in the rows of either run")


def _other_inputs(one: pa.Table, other: pa.Table) -> int:
    """How many rows differ in a common input column."""
    if not all("input" in table.column_names for table in (one, other)):
        return 0
    columns = [table.column("input") for table in (one, other)]
    differ = np.zeros(len(one), bool)
    for place, kind in enumerate(columns[0].type):
        where = columns[1].type.get_field_index(kind.name)
        if where < 0:
            continue
        values = pc.struct_field(columns[0], [place]), pc.struct_field(columns[1], [where])
        if not values[0].equals(values[1]):
            both = zip(*(side.to_pylist() for side in values), strict=True)
            differ |= np.fromiter((x != y and repr(x) != repr(y) for x, y in both), bool, len(one))
    return int(differ.sum())
