"""The state of a training: steps, missing steps, losses, speed, checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

from hpcjobs.config import Config
from hpcjobs.config.resolve import read_config
from hpcjobs.run_folder.merged import Merged
from hpcjobs.run_folder.metrics_file import CheckpointFacts, MetricsFile, Summary
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.plan import Plan
from hpcjobs.run_folder.planned import allowed_changes
from hpcjobs.run_folder.provenance import merged_facts
from hpcjobs.training.checkpoints.checkpoint import MANIFEST, Checkpoints, manifest_bytes
from hpcjobs.training.data.tokens import TokenFacts
from hpcjobs.training.steps import Curve, StepRecord, read_curve


@dataclass(frozen=True, kw_only=True)
class TrainMerged(Merged):
    """The result of a train run's merge. `rows` are the planned steps, `missing` those without a record; `model`:
    model/ exists.
    """

    model: bool = True

    @property
    def complete(self) -> bool:
        """Whether all steps have a record and model/ exists."""
        return self.model and not self.missing


@dataclass(frozen=True)
class Training:
    """The state of a train run, from rank 0's journals. `values` are what a merge writes to metrics.json."""

    merged: TrainMerged
    curve: Curve
    values: dict[str, object]

    @property
    def file(self) -> MetricsFile:
        """The values, typed as metrics.json is read."""
        return MetricsFile.of(self.values)


def read_training(paths: RunPaths) -> Training:
    """Read the state of a train run, finished or not. Writes nothing. Raises a MergeError for a broken journal."""
    config, plan = read_config(paths.config), Plan.read(paths.plan)
    facts = TokenFacts.known(paths)
    curve = read_curve(paths)
    steps = facts.steps if facts else config.train.max_steps or 1
    missing = [step for step in range(1, steps + 1) if step not in curve.steps]
    accepted, whole = steps - len(missing), paths.model.exists()
    merged = TrainMerged(rows=steps, accepted=accepted, missing=missing, metrics=_metrics(curve), model=whole)
    values = _metrics_json(paths, config, plan, merged, curve, facts) | {"train": _train(paths, config, curve, facts)}
    return Training(merged, curve, values)


def _metrics(curve: Curve) -> dict[str, Summary]:
    """The last loss, and the last and best validation loss, each with its step."""
    if not curve.steps:
        return {}
    records = [curve.steps[step] for step in sorted(curve.steps)]
    found = {"loss": (records[-1].loss, records[-1].step)}
    eval_losses = [(record.eval_loss, record.step) for record in records if record.eval_loss is not None]
    if eval_losses:
        found |= {"eval_loss": eval_losses[-1], "best_eval_loss": min(eval_losses)}
    return {
        name: {"value": value, "n": len(records), "ci95": None, "stderr": None, "step": step}
        for name, (value, step) in found.items()
    }


def _metrics_json(
    paths: RunPaths, config: Config, plan: Plan, merged: TrainMerged, curve: Curve, facts: TokenFacts | None
) -> dict[str, object]:
    return {
        "complete": merged.complete,
        "metrics": merged.metrics,
        "counts": {
            "rows": merged.rows, "accepted": merged.accepted, "missing": len(merged.missing), "errors": 0,
            "tokens": sum(record.tokens for record in curve.steps.values()),
        },
        "warnings": _warnings(paths, merged, facts),
        "provenance": merged_facts(plan, config.run.seed),
    }  # fmt: skip


def _train(paths: RunPaths, config: Config, curve: Curve, facts: TokenFacts | None) -> dict[str, object]:
    """Values that only train runs have: speed, checkpoints, model, and the eval that follows."""
    records = list(curve.steps.values())
    tokens, seconds = sum(record.tokens for record in records), sum(record.seconds for record in records)
    rank_seconds = sum(record.seconds * record.world_size for record in records)
    return {
        "samples": facts.train.samples if facts else None,
        "left_out": facts.train.left_out if facts else None,
        "truncated": facts.train.cut if facts else None,
        "validation_samples": facts.validation.samples if facts and facts.validation else None,
        "epochs": _last(records).epoch if records else 0.0,
        "tokens_per_s": round(tokens / seconds, 2) if seconds else 0.0,
        "tokens_per_s_per_rank": round(tokens / rank_seconds, 2) if rank_seconds else 0.0,
        "seconds": round(seconds, 3),
        "steps_run_again": curve.repeated,
        "checkpoints": [_checkpoint(paths, step) for step in reversed(Checkpoints(paths, config.train.keep).steps())],
        "model": str(paths.model) if paths.model.exists() else None,
        "model_step": _model_step(paths, config, curve, facts),
        "adapter": str(paths.adapter) if paths.adapter.exists() else None,
        "then_eval": str(paths.eval_of()) if config.train.then_eval else None,
    }


def _model_step(paths: RunPaths, config: Config, curve: Curve, facts: TokenFacts | None) -> int | None:
    """The step of which model/ is; None before there is one."""
    record = curve.exported(config.train, facts.steps) if facts and paths.model.exists() else None
    return record.step if record else None


def _last(records: list[StepRecord]) -> StepRecord:
    return max(records, key=lambda record: record.step)


def _checkpoint(paths: RunPaths, step: int) -> CheckpointFacts:
    """A checkpoint from its manifest, without verifying it: a resume does."""
    try:
        return {"step": step, "bytes": manifest_bytes(paths.checkpoint(step))}
    except (OSError, ValueError, KeyError) as error:
        return {"step": step, "bytes": None, "error": f"its {MANIFEST} cannot be read: {error}"}


def _warnings(paths: RunPaths, merged: TrainMerged, facts: TokenFacts | None) -> list[str]:
    warnings = allowed_changes(paths)
    if facts is None and not merged.accepted:
        warnings.append("no step is done, and the rows are not tokenised yet")
    elif merged.missing:
        first = merged.missing[0]
        warnings.append(f"{len(merged.missing)} of {merged.rows} steps have no record, the first is step {first}")
    elif not merged.model:
        warnings.append("all steps are done, and model/ is not written")
    return warnings + (facts.warnings() if facts else [])
