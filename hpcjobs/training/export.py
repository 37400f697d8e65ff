"""What a training gives away: a model that plain transformers loads, and its adapter alone; whole or not there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hpcjobs.config import Config, TrainConfig
from hpcjobs.run_folder.files import FILE_MODE, FOLDER_MODE, sync_folder, temporary_name
from hpcjobs.training.card import adapter_card, model_card
from hpcjobs.training.checkpoints.state import trained_weights

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from hpcjobs.distributed.work import Work
    from hpcjobs.training.setup import Prepared


def export(work: Work, prepared: Prepared) -> None:
    """All ranks together, at the end: adapter/ where there is one, and then model/, by which a run is complete."""
    if has_adapter(work.config.train):
        write_adapter(work, prepared, work.paths.adapter)
    write_model(work, prepared, work.paths.model)


def has_adapter(train: TrainConfig) -> bool:
    """Whether adapters are worth keeping: those of random weights have no base that anybody could load."""
    return train.lora.rank is not None and train.init == "pretrained"


def write_model(work: Work, prepared: Prepared, target: Path) -> None:
    """All ranks together: the model of now as the folder `target`. What is being trained stays as it is.

    Adapters are merged into what they adapt, loaded once more in float32 into rank 0's host memory: so it does not
    matter how the weights are spread over the ranks.
    """
    temporary = temporary_name(target)
    if work.config.train.lora.rank is None:
        prepared.connector.save_model(prepared.state.model, temporary)
    else:
        adapters = trained_weights(prepared.state)
        if work.rank.is_main:
            merged_model(work.config, adapters).save_pretrained(temporary, safe_serialization=True)
            prepared.connector.tokenizer.save_pretrained(temporary)
    if work.rank.is_main:
        (temporary / "README.md").write_text(model_card(work.paths, work.config, work.plan), encoding="utf-8")
        _name(temporary, target)
    prepared.connector.accelerator.wait_for_everyone()


def write_adapter(work: Work, prepared: Prepared, target: Path) -> None:
    """All ranks together: the adapters of now as the folder `target`, in peft's format, which names their base."""
    adapters, temporary = trained_weights(prepared.state), temporary_name(target)
    if work.rank.is_main:
        prepared.state.plain.save_pretrained(
            temporary, state_dict=adapters, safe_serialization=True, save_embedding_layers=False
        )
        (temporary / "README.md").write_text(adapter_card(work.paths, work.config, work.plan), encoding="utf-8")
        _name(temporary, target)
    prepared.connector.accelerator.wait_for_everyone()


def merged_model(config: Config, adapters: Mapping[str, torch.Tensor]) -> PreTrainedModel:
    """The base model, on the CPU in float32, with `adapters` (by their names in the adapted model) merged into it."""
    import torch

    from hpcjobs.engines.loader import ModelSource, fresh_model, load_model
    from hpcjobs.training.setup import adapted

    model = config.model
    source = ModelSource(model.name, model.revision, None, model.trust_remote_code)
    if config.train.init == "random":
        base, _ = fresh_model(source, "cpu", config.run.seed)
    else:
        base, _ = load_model(source, "cpu", torch.float32)
    whole = adapted(base, config)
    own = dict(whole.named_parameters()) | dict(whole.named_buffers())
    with torch.no_grad():
        for name, tensor in adapters.items():
            own[name].copy_(tensor)
    return whole.merge_and_unload()


def _name(temporary: Path, target: Path) -> None:
    """Make a finished folder durable and private, and give it its name; one that stands there already goes."""
    for path in temporary.iterdir():
        path.chmod(FILE_MODE)
        with path.open("rb") as file:
            os.fsync(file.fileno())
    temporary.chmod(FOLDER_MODE)
    shutil.rmtree(target, ignore_errors=True)
    os.rename(temporary, target)
    sync_folder(target.parent)
