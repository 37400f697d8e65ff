"""The findings of compare for two train runs, as exit code, JSON and text."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpcjobs.compare.eval_findings import check_out
from hpcjobs.compare.gates import Gate, check_gates, gates_exit_code, judge_value, parse_gates
from hpcjobs.compare.train import BEYOND, LOSSES, TrainComparison, TrainSide, compare_trainings
from hpcjobs.run_folder.files import write_whole
from hpcjobs.run_folder.paths import RunPaths

_TITLES = {"tokens_per_s": "tokens/s", "tokens_per_s_per_rank": "tokens/s a rank", "samples_read": "samples read"}


@dataclass(frozen=True)
class TrainFindings:
    """A comparison with its gates. `out` is the file with all common steps, `report` the HTML page."""

    comparison: TrainComparison
    gates: list[Gate]
    out: Path | None
    report: Path | None = None

    def exit_code(self) -> int:
        """0; 1 if a gate finds a regression; else 3 if a gate cannot be decided."""
        return gates_exit_code(self.gates)

    def values(self) -> dict[str, object]:
        """The findings as JSON values."""
        found = self.comparison
        return {
            "job": "train", "a": _side_values(found.a), "b": _side_values(found.b),
            "values": {name: _pair_values(found, name) for name in found.a.values},
            "config": {name: {"a": pair[0], "b": pair[1]} for name, pair in found.config.items()},
            "curve": _curve_values(found), "same_data": found.batches is not None,
            "batches": None if found.batches is None else asdict(found.batches),
            "warnings": list(self.warnings()), "gates": [asdict(gate) for gate in self.gates],
            "steps_file": None if self.out is None else str(self.out),
            "report": None if self.report is None else str(self.report),
        }  # fmt: skip

    def lines(self) -> Iterator[str]:
        """The findings as text."""
        found = self.comparison
        for letter, side in (("A", found.a), ("B", found.b)):
            state = "complete" if side.training.merged.complete else "INCOMPLETE"
            yield f"{letter:<7} {state}, {_share(side)} steps, model {side.plan.model.name}  {side.paths.root}"
        yield f"{'':<16} {'A':>14} {'B':>14} {'B - A':>14}"
        for title, *cells, remark in value_rows(found):
            yield f"{title:<16} {' '.join(f'{cell:>14}' for cell in cells)}  {remark}".rstrip()
        for key, (a, b) in found.config.items():
            yield f"config  {key}: {short(a)} -> {short(b)}"
        if not found.config:
            yield "config  the same in all keys that matter to a training"
        yield from story(found)
        for gate in self.gates:
            yield gate.line()
        if self.out is not None:
            yield f"all {len(found.curves.steps)} common steps: {self.out}"
        if self.report is not None:
            yield f"report  {self.report}"

    def warnings(self) -> Iterator[str]:
        """Warnings about the two runs that affect the comparison."""
        found = self.comparison
        if found.a.paths.root == found.b.paths.root:
            yield "A and B are the same run"
        for letter, side in (("A", found.a), ("B", found.b)):
            if not side.training.merged.complete:
                yield f"{letter} is incomplete, {_share(side)} steps; next: hpcjobs status {side.paths.root}"
            if lacking := len(side.training.curve.steps) - len(side.step_samples):
                yield f"{letter} lacks a rank's record of {lacking} steps: their samples are not known"
        if (ends := [side.step_of("loss") for side in (found.a, found.b)])[0] != ends[1]:
            yield f"the last loss is that of step {ends[0]} in A, and of step {ends[1]} in B"
        yield from _origin_warnings(found)


def find_trainings(
    a: RunPaths, b: RunPaths, gates: Sequence[str], allow_incomplete: bool, out: Path | None, report: Path | None = None
) -> TrainFindings:
    """Compare two train runs and decide the gates, each `loss=0.01`. Raises a UsageError before anything is written."""
    limits, found = parse_gates(gates), compare_trainings(TrainSide.read(a), TrainSide.read(b))
    check_gates(limits, found.metrics, "these are what a train run is held to")
    for flag, path in (("--out", out), ("--report", report)):
        if path is not None:
            check_out(path, flag)
    if out is not None:
        write_whole(out, (json.dumps(step) + "\n" for step in found.steps()))
    partial = [letter for letter, side in (("A", found.a), ("B", found.b)) if not side.training.merged.complete]
    why = f"incomplete: {', '.join(partial)}; --allow-incomplete decides by the steps that there are" if partial else ""
    return TrainFindings(found, list(_judged(found, limits, "" if allow_incomplete else why)), out, report)


def _judged(found: TrainComparison, limits: Mapping[str, float], undecided: str) -> Iterator[Gate]:
    for name, limit in limits.items():
        pair = [value for value in (found.a.values[name], found.b.values[name]) if value is not None]
        yield judge_value(name, limit, pair[0], pair[1], "higher" if name in LOSSES else "lower", undecided)


def _share(side: TrainSide) -> str:
    return f"{side.training.merged.accepted}/{side.training.merged.rows}"


def _sizes(side: TrainSide) -> str:
    return ", ".join(map(str, side.world_sizes))


def _side_values(side: TrainSide) -> dict[str, object]:
    merged, plan = side.training.merged, side.plan
    return {
        "run": side.paths.root.name, "folder": str(side.paths.root), "complete": merged.complete, "rows": merged.rows,
        "accepted": merged.accepted, "missing": len(merged.missing), "model": plan.model.name,
        "data": plan.data.name, "data_sha256": plan.data.sha256, "world_sizes": side.world_sizes,
        "steps_run_again": side.training.curve.repeated,
    }  # fmt: skip


def _pair_values(found: TrainComparison, name: str) -> dict[str, float | None]:
    a, b = found.a.values[name], found.b.values[name]
    values = {"a": a, "b": b, "difference": None if a is None or b is None else b - a}
    return values | ({"a_step": found.a.step_of(name), "b_step": found.b.step_of(name)} if name in LOSSES else {})


def _curve_values(found: TrainComparison) -> dict[str, Any]:
    curves, places = found.curves, {"greatest": found.curves.greatest, "last": len(found.curves.steps) - 1}
    shown = {name: None if place is None or place < 0 else _at(found, place) for name, place in places.items()}
    return {
        "steps": len(curves.steps), "first_difference": curves.first_difference, "first_beyond": curves.first_beyond,
        "beyond": BEYOND,
    } | shown  # fmt: skip


def _at(found: TrainComparison, place: int) -> dict[str, Any]:
    """One step of the curves."""
    a, b = (float(side[place]) for side in (found.curves.a, found.curves.b))
    values = {"a": a, "b": b, "difference": b - a}
    finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
    return {"step": int(found.curves.steps[place])} | finite


def value_rows(found: TrainComparison) -> Iterator[tuple[str, str, str, str, str]]:
    """(title, A, B, B - A, remark) as text, for each value that either run has; the ranks last."""
    for name, a in found.a.values.items():
        b = found.b.values[name]
        if a is None and b is None:
            continue
        difference = "" if a is None or b is None else _number(b - a, "+")
        yield _TITLES.get(name, name), _number(a), _number(b), difference, "  ".join(_remarks(found, name))
    yield "ranks", _sizes(found.a), _sizes(found.b), "", ""


def _remarks(found: TrainComparison, name: str) -> Iterator[str]:
    """The relative difference of a value, and the steps of a loss."""
    a, b = found.a.values[name], found.b.values[name]
    if a is not None and b is not None and b != a and abs(b - a) < 10 * abs(a):
        yield f"{(b - a) / abs(a):+.1%}"
    if name in LOSSES:
        steps = [_number(side.step_of(name)) for side in (found.a, found.b)]
        yield f"step {', '.join(dict.fromkeys(steps))}"


def _number(value: float | None, sign: str = "") -> str:
    if value is None:
        return "-"
    return f"{value:{sign}d}" if isinstance(value, int) else f"{value:{sign}.6g}"


def short(value: object) -> str:
    """A config value on one line; long values are cut in the middle."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:70]} ... {text[-40:]}"


def story(found: TrainComparison) -> Iterator[str]:
    """Where the curves differ, and whether the samples do."""
    yield from _curve_lines(found)
    yield from _batch_lines(found)


def _curve_lines(found: TrainComparison) -> Iterator[str]:
    curves, values = found.curves, _curve_values(found)
    many = f"{len(curves.steps)} step{'' if len(curves.steps) == 1 else 's'} in both"
    if not len(curves.steps):
        yield "curve   no step is in both"
        return
    if curves.first_difference is None:
        yield f"curve   {many}: every loss is the same, bit for bit"
        return
    beyond = f"by more than {BEYOND:g} from step {curves.first_beyond}"
    apart = f"never by more than {BEYOND:g}" if curves.first_beyond is None else beyond
    yield f"curve   {many}: the loss differs from step {curves.first_difference}, {apart}"
    for name, title in (("greatest", "most"), ("last", "last")):
        at = values[name]
        if at and at["difference"] is not None and (name == "greatest" or at != values["greatest"]):
            yield f"{'':<7} {title} at step {at['step']}: {at['a']:.6g} -> {at['b']:.6g}, {at['difference']:+.6g}"


def _batch_lines(found: TrainComparison) -> Iterator[str]:
    batches = found.batches
    if batches is None:
        yield "batches not compared: the data sets are not the same"
    elif not batches.compared:
        yield "batches not compared: of no step are all ranks' samples known on both sides"
    elif batches.first_other is None:
        yield f"batches the same samples in the same order, in all {batches.compared} steps"
    else:
        share = f"{batches.same} of {batches.compared} steps have the same ones"
        yield f"batches other samples from step {batches.first_other} on; {share}"


def _origin_warnings(found: TrainComparison) -> Iterator[str]:
    """Differences that the configs do not show: the content behind equal names."""
    a, b = found.a.plan, found.b.plan
    if found.batches is None:
        names = [f"{plan.data.name} ({plan.rows} rows, sha256 {plan.data.sha256[:8]})" for plan in (a, b)]
        yield f"the data sets are not the same: {' and '.join(names)}"
    for key in ("weights_sha256", "commit"):
        one, other = (str(getattr(plan.model, key))[:8] for plan in (a, b))
        if one != other and a.model.name == b.model.name:
            yield f"the model {a.model.name} was not the same: {key} {one} in A, {other} in B"
    one, other = (str(plan.code.hpcjobs_sha256)[:8] for plan in (a, b))
    if one != other:
        yield f"hpcjobs itself was not the same: {a.code.hpcjobs} ({one}) and {b.code.hpcjobs} ({other})"
