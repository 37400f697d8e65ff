"""The findings of compare as exit code, JSON and text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hpcjobs.compare.eval import Comparison, Side, common_metrics, compare
from hpcjobs.compare.gates import Gate, check_gates, gates_exit_code, judge, parse_gates
from hpcjobs.compare.statistics import Differences
from hpcjobs.errors import UsageError
from hpcjobs.metrics import SCORING, changed_since
from hpcjobs.metrics.registry import lower_is_better
from hpcjobs.run_folder.disk import run_of
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.run_state import RunState


@dataclass(frozen=True)
class Findings:
    """A comparison with its gates. `out` is the file for all flips; `failed`: one of the runs has failed."""

    comparison: Comparison
    gates: list[Gate]
    out: Path | None
    failed: bool = False

    def exit_code(self) -> int:
        """0; 1 if a gate finds a regression, or a run has failed; else 3 if a gate cannot be decided."""
        return 1 if self.failed else gates_exit_code(self.gates)

    def values(self) -> dict[str, object]:
        """The findings as JSON values, without the flips."""
        found, pairs = self.comparison, self.comparison.pairs
        return {
            "a": _side_values(found.a), "b": _side_values(found.b), "common": pairs.common, "only_a": pairs.only_a,
            "only_b": pairs.only_b, "in_order": pairs.in_order, "same_data": found.other_inputs is None,
            "other_inputs": found.other_inputs or 0, "warnings": list(self.warnings()),
            "metrics": {
                name: _metric_values(each, name in found.lower) | {"of_samples": self._of_samples(name)}
                for name, each in found.metrics.items()
            },
            "gates": [asdict(gate) for gate in self.gates],
            "flips_file": None if self.out is None else str(self.out),
        }  # fmt: skip

    def lines(self) -> Iterator[str]:
        """The findings as text, without the flips."""
        found = self.comparison
        for letter, side in (("A", found.a), ("B", found.b)):
            state = side.verdict.remark or "complete"
            yield f"{letter:<7} {state}, {_share(side)} samples, model {side.model}  {side.paths.root}"
        how = "" if found.pairs.in_order else "; they stand in another order, and were joined in memory"
        yield f"paired  {found.pairs.common} samples by id{how}"
        for name, each in found.metrics.items():
            remark = "; lower is better" if name in found.lower else ""
            remark += f"; means of the samples' scores, not the runs' {name}" if self._of_samples(name) else ""
            yield from _metric_lines(name, each, remark)
        if not any(each.worse or each.better or each.unscored for each in found.metrics.values()):
            yield "no difference in any score"
        for gate in self.gates:
            yield gate.line()

    def _of_samples(self, name: str) -> bool:
        """Whether the means of a metric are not what `score` shows for the runs."""
        found, each = self.comparison, self.comparison.metrics[name]
        sides = ((found.a, each.a), (found.b, each.b))
        return any(side.is_no_mean(name, total / each.n, each.n) for side, total in sides if each.n)

    def warnings(self) -> Iterator[str]:
        """Warnings about the two runs that affect the comparison."""
        found = self.comparison
        if found.a.paths.root == found.b.paths.root:
            yield "A and B are the same run"
        for letter, side in (("A", found.a), ("B", found.b)):
            yield from _side_warnings(letter, side)
            if earlier := _earlier(side, found.metrics):
                names = f"{', '.join(earlier)} of {letter}"
                then = f"hpcjobs score {side.paths.root} scores its answers as they are scored now"
                yield f"{names} may be other values now, an earlier version of hpcjobs has scored it; next: {then}"
        yield from self._pair_warnings()
        if (ours := found.a.cluster_by) != (theirs := found.b.cluster_by):
            yield f"task.cluster_by is {ours} in A and {theirs} in B: the pairs' clusters are by {ours or theirs}"
        if found.a.target != found.b.target:
            yield f"A was scored against the target {found.a.target!r}, B against {found.b.target!r}"
        for name, each in found.metrics.items():
            if (a := found.a.revisions.get(name, 1)) != (b := found.b.revisions.get(name, 1)):
                old = (found.a if a < b else found.b).paths.root
                then = f"next: hpcjobs score {old} --metric {name!r}"
                yield f"{name}: the definition has changed between the scores of A and B; {then}"
            if (name in found.a.lower) != (name in found.b.lower):
                says = "A" if name in found.a.lower else "B"
                yield f"{name}: only {says} says that lower is better, which is taken; hpcjobs merge records it"
            if each.unscored:
                yield f"{name}: {each.unscored} pairs lack a finite score on one side, and are left out"

    def _pair_warnings(self) -> Iterator[str]:
        found, pairs = self.comparison, self.comparison.pairs
        if pairs.only_a or pairs.only_b:
            yield f"{pairs.only_a} samples are only in A and {pairs.only_b} only in B: they are left out"
        if found.other_inputs is not None:
            names = f"{found.a.data['name']} ({_rows(found.a)}) and {found.b.data['name']} ({_rows(found.b)})"
            yield f"the data sets are not the same: {names}"
        if found.other_inputs:
            yield f"{found.other_inputs} of the common samples have another input in B: their ids say that they are one"
        for mine, other in ((found.a, found.b), (found.b, found.a)):
            if lacking := [name for name in mine.results.metrics if name not in found.metrics]:
                then = _score_with(other, mine, [*found.metrics, *lacking])
                yield f"{other.paths.root} has no {', '.join(lacking)}{then}"


def find(a: RunPaths, b: RunPaths, gate_words: Sequence[str], allow_incomplete: bool, out: Path | None) -> Findings:
    """Compare two runs and decide the gates, each `metric=0.01`. Raises a UsageError before anything is read or
    written.
    """
    limits, one, other = parse_gates(gate_words), Side.read(a), Side.read(b)
    check_gates(limits, common_metrics(one, other))
    if out is not None:
        check_out(out)
    found = compare(one, other)
    partial = [letter for letter, side in (("A", one), ("B", other)) if not side.complete]
    partial += [f"{name} of some pairs" for name in limits if found.metrics[name].unscored]
    failed = any(side.verdict.state == RunState.FAILED for side in (one, other))
    word = "failed or incomplete" if failed else "incomplete"
    why = f"{word}: {', '.join(partial)}; --allow-incomplete decides by the pairs that there are"
    undecided = why if partial and not allow_incomplete else ""
    gates = judge(limits, found.metrics, undecided, found.lower)
    return Findings(found, gates, out, failed and not allow_incomplete)


def _score_with(side: Side, other: Side, metrics: Sequence[str]) -> str:
    """The command that gives a run these metrics; none where either is an lm_eval task, which has its own."""
    flags = " ".join(f"--metric {name}" for name in metrics)
    return "" if side.lm_eval or other.lm_eval else f"; next: hpcjobs score {side.paths.root} {flags}"


def check_out(out: Path, flag: str = "--out") -> None:
    """Raise a UsageError if the user's output file is a folder, in no folder, or inside a run."""
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise UsageError(f"{flag} {out} is {'a folder' if out.is_dir() else 'in a folder that does not exist'}")
    if run := run_of(out.resolve()):
        raise UsageError(f"{flag} {out} is inside the run {run.root}: choose a file elsewhere")


def _share(side: Side) -> str:
    return f"{side.counts.accepted}/{side.counts.rows}"


def _rows(side: Side) -> str:
    return f"{side.data['rows']} rows, sha256 {side.data['sha256'][:8]}"


def _side_values(side: Side) -> dict[str, object]:
    counts = {name: getattr(side.counts, name) for name in ("rows", "accepted", "missing", "errors", "metric_errors")}
    state = {"state": str(side.verdict.state), "why": side.verdict.why}
    place = {"run": side.paths.root.name, "folder": str(side.paths.root), "complete": side.complete}
    return place | state | counts | {"model": side.model, "data": side.data["name"], "data_sha256": side.data["sha256"]}


def _side_warnings(letter: str, side: Side) -> Iterator[str]:
    counts, verdict = side.counts, side.verdict
    if counts.missing:
        yield f"{letter} is incomplete, {_share(side)} samples; next: hpcjobs resume {side.paths.root}"
    if verdict.why and not (counts.missing and verdict.state == RunState.INCOMPLETE):
        verb, _, flags = verdict.verb.partition(" ")
        then = f"; next: hpcjobs {verb} {side.paths.root} {flags}".rstrip() if verb else ""
        yield f"{letter} is {verdict.state}: {verdict.why}{then}"
    if counts.errors:
        yield f"{letter} has {counts.errors} samples that ended in an error: {_errors_count(side)}"


def _earlier(side: Side, metrics: Iterable[str]) -> list[str]:
    """The metrics that an earlier version may have scored otherwise."""
    if side.scoring < SCORING and side.lm_eval and side.counts.errors:
        return list(metrics)  # an error counted 0
    return changed_since(side.scoring, metrics, side.normalize)


def _errors_count(side: Side) -> str:
    """How errors count in the metrics of a run."""
    out = [name for name in side.results.metrics if lower_is_better(name)]
    zero = [name for name in side.results.metrics if name not in out]
    if side.lm_eval or not zero:
        return "they are in no metric"
    if not out:
        return "they count 0 in every metric"
    return f"they are left out of {', '.join(out)}, and count 0 in {', '.join(zero)}"


def _metric_values(found: Differences, lower: bool) -> dict[str, object]:
    test = found.mcnemar()
    means = {name: total / found.n if found.n else None for name, total in (("a", found.a), ("b", found.b))}
    return {
        "n": found.n, **means, "difference": found.mean, "stderr": found.stderr, "ci95": found.interval(),
        "bootstrap_ci95": found.bootstrap(), "lower": found.worse, "higher": found.better, "unscored": found.unscored,
        "mcnemar": None if test is None else asdict(test), "lower_is_better": lower,
        "clusters": found.clusters,
    }  # fmt: skip


def _metric_lines(name: str, found: Differences, remark: str) -> Iterator[str]:
    if found.mean is None:
        yield f"{name:<16} -  n=0"
        return
    parts = [f"{name:<16} {found.a / found.n:.4f} -> {found.b / found.n:.4f}", f"{found.mean:+.4f}"]
    for label, interval in (("95%", found.interval()), ("bootstrap", found.bootstrap())):
        parts += [f"{label} [{interval[0]:+.4f}, {interval[1]:+.4f}]"] if interval else []
    clusters = "" if found.clusters is None else f" in {found.clusters} clusters"
    yield "  ".join([*parts, f"n={found.n}{clusters}"])
    if test := found.mcnemar():
        test_line = f"{found.worse} from 1 to 0, {found.better} from 0 to 1; McNemar ({test.method})"
        statistic = "" if test.statistic is None else f" {test.statistic:.2f},"
        yield f"{'':<16} {test_line}{statistic} p={test.p_value:.3g}{remark}"
    else:
        yield f"{'':<16} {found.worse} lower, {found.better} higher in B{remark}"
