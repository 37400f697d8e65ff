"""Plan `submit train`: check rows, batches and the eval that follows before anything is queued."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from hpcjobs.config import Config, TrainConfig
from hpcjobs.config.placing import placing
from hpcjobs.config.resolve import dump, resolve
from hpcjobs.config.shape import Shape, shape_of
from hpcjobs.engines.own_dtype import save_dtype
from hpcjobs.errors import ConfigError, DataError
from hpcjobs.plan.accelerate_config import with_accelerate_config
from hpcjobs.plan.chat_template import check_first_chats
from hpcjobs.plan.draft import Draft, draft_run
from hpcjobs.plan.eval import make_plan
from hpcjobs.plan.locate import located
from hpcjobs.plan.model import checked_model, model_folder
from hpcjobs.plan.model_files import vocabulary_notes
from hpcjobs.plan.train_rows import row_notes
from hpcjobs.requests import Chat, Row
from hpcjobs.run_folder.inputs import table_sha256, user_columns
from hpcjobs.run_folder.json_columns import python_rows
from hpcjobs.run_folder.plan import Plan, PlanData, PlanTrain
from hpcjobs.run_folder.snapshot import Snapshot
from hpcjobs.tasks.datasets import load_table
from hpcjobs.tasks.nulls import null_notes
from hpcjobs.training.batches import fixed, plan_batches
from hpcjobs.training.data.examples import Examples
from hpcjobs.training.data.validation_rows import validation_table
from hpcjobs.training.trackers.base import check_trackers


def make_train_plan(config: Config, folder: Path | None = None) -> Draft:
    """Plan `submit train`. Data, templates, batches and the eval that follows are checked.

    Raises a UsageError (ConfigError, DataError).
    """
    check_trainable(config)
    if not config.cluster.container:  # what a container has cannot be seen from here
        check_trackers(config.train.trackers)
    shape = shape_of(config.cluster, 1)
    config, notes = located(config), list[str]()
    if config.train.accelerate_config:
        train, notes = with_accelerate_config(config.train, Path(config.train.accelerate_config), shape)
        config = config.model_copy(update={"train": train})
    config = config.model_copy(update={"train": fixed(config.train, shape.ranks)})
    batches = plan_batches(config.train, shape.ranks)
    model, table = checked_model(config), load_table(config.data)
    examples = Examples(config.task, user_columns(table.column_names))
    if not len(table):
        raise DataError(f"data set {config.data.title} has no rows to learn from")
    _try_example(examples, table)
    notes += check_first_chats(config, table, lambda row: _learned_chat(examples, row))
    notes += null_notes(examples.prompts, table) if examples.prompts else []
    notes += row_notes(config, table, examples) + vocabulary_notes(model_folder(config))
    notes += _batch_notes(config.train, len(table))
    validation = validation_table(config)
    if validation is not None:
        notes += [f"{config.train.validation_split}: {note}" for note in row_notes(config, validation, examples)]
    steps = config.train.max_steps or _passes(config.train.epochs or 1.0)
    data = PlanData(name=config.data.title, rows=len(table), sha256=table_sha256(table), columns=table.column_names)
    after = _eval_after(config)
    notes += _notes_of_eval(after, config, shape) if after else []
    details = PlanTrain(
        global_batch=config.train.global_batch,
        batches=str(batches),
        steps=str(steps),
        notes=notes,
        then_eval=config.train.then_eval,
        then_eval_shape=str(after.plan.shape) if after else None,
        save_dtype=save_dtype(config, model_folder(config)),
    )
    return draft_run(
        "train", config, folder, shape, lambda run: Snapshot(), table=table, data=data, model=model, train=details,
        validation=validation, then_eval=after.text if after else None,
    )  # fmt: skip


def _passes(epochs: float) -> str:
    return "once over the data" if epochs == 1 else f"{epochs:g} times over the data"


def _batch_notes(train: TrainConfig, rows: int) -> list[str]:
    """A note where one step takes rows more than once: epochs follow each other without a gap."""
    learned = rows - int(rows * train.validation_fraction)
    if train.global_batch <= learned:
        return []
    times = train.global_batch / max(learned, 1)
    few = f"{learned} row{'s' if learned != 1 else ''}{' (fewer when packed)' if train.packing else ''}"
    each = f"each step goes {times:.3g} times over the data; for one pass in several steps set it lower"
    return [f"train.global_batch is {train.global_batch}, and there are {few}: {each}"]


def _learned_chat(examples: Examples, row: Row) -> Chat | None:
    """The chat of a row as it is learned; None if it is a text."""
    example = examples.example(row)
    if isinstance(example.context, str) or isinstance(example.completion, str):
        return None
    return [*example.context, *example.completion]


def check_trainable(config: Config) -> None:
    """Raise a ConfigError for settings that a train run cannot have. A resume with another shape checks them again."""
    wrong = {
        "model.engine dummy has nothing to learn: name a model": config.model.engine == "dummy",
        "model.gpus_per_rank is 1: a model that needs more GPUs is sharded, train.fsdp.enabled": (
            config.model.gpus_per_rank > 1
        ),
        "its ranks go in step, and those of an array do not: leave --array out": config.cluster.array,
    }
    for why, so in wrong.items():
        if so:
            raise ConfigError(f"for a train run {why}")


def _try_example(examples: Examples, table: pa.Table) -> None:
    row = python_rows(table.slice(0, 1))[0]
    try:
        examples.example(row)
    except Exception as error:  # a template may raise anything
        raise DataError(f"the first row (id {row['id']!r}) cannot be learned from: {error}") from None


@dataclass(frozen=True)
class _After:
    """The eval of `train.then_eval`: its YAML, and what it comes to."""

    text: str
    plan: Plan


def _eval_after(config: Config) -> _After | None:
    """The eval that follows, checked as far as possible before the model exists."""
    if config.train.then_eval is None:
        return None
    after, places = resolve("eval", Path(config.train.then_eval), None, [])
    with placing(places, otherwise=config.train.then_eval):
        base = {"model": config.model, "train": config.train}  # instead of the model that there will be
        draft = make_plan("eval", after.model_copy(update=base))
    return _After(dump(located(after)), draft.plan)


def _notes_of_eval(after: _After, config: Config, shape: Shape) -> list[str]:
    """What is worth knowing about the eval, before hours of training."""
    notes = [f"eval: {note}" for note in after.plan.notes]
    if shape.gpus_per_node and not after.plan.shape.gpus_per_node:
        why = f"the training has GPUs, and its eval has none: set cluster.gpus in {config.train.then_eval}"
        notes.append(why)
    return notes
