"""Export a training: a model that transformers loads, and its adapter. Folders are complete or absent."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hpcjobs.config import Config, TrainConfig
from hpcjobs.run_folder.disk import disk_errors, os_errors_of_libraries
from hpcjobs.run_folder.files import hide, make_folder, sync_folder, temporary_name
from hpcjobs.training.card import adapter_card, model_card
from hpcjobs.training.checkpoints.state import trained_weights
from hpcjobs.training.data.encode import learned_end
from hpcjobs.training.data.tokens import TokenFile

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from hpcjobs.distributed.work import Work
    from hpcjobs.training.setup import Prepared

# Samples that tell with which token a run's turns end.
_SAMPLES_FOR_END = 200


def export(work: Work, prepared: Prepared) -> None:
    """All ranks together, at the end: write adapter/, if there is one, then model/, which makes the run complete."""
    if has_adapter(work.config.train):
        write_adapter(work, prepared, work.paths.adapter)
    write_model(work, prepared, work.paths.model)


def has_adapter(train: TrainConfig) -> bool:
    """Whether the adapter is exported: not for random base weights, which nobody could load."""
    return train.lora.rank is not None and train.init == "pretrained"


def write_model(work: Work, prepared: Prepared, target: Path) -> None:
    """All ranks together: write the current model to the folder `target`. Training is not affected.

    Adapters are merged into the base model, which rank 0 loads again in float32 into host memory, so it does not matter
    how weights are sharded. What is stored is rounded once, to `train.save_dtype`.
    """
    from hpcjobs.engines.loader import torch_dtype
    from hpcjobs.engines.store import store_model

    end = _learned_end(work, prepared)
    dtype = torch_dtype(work.plan.train.save_dtype or "float32")  # runs of earlier versions have none
    with _made(work, target, _bytes_of(prepared.state.plain.parameters(), dtype)) as temporary:
        if work.config.train.lora.rank is None:
            _end_with(prepared.state.plain, end)
            prepared.connector.save_model(prepared.state.model, temporary, dtype)
        else:
            adapters = trained_weights(prepared.state)
            if work.rank.is_main:
                _check_base(work)  # days may lie between
                merged = merged_model(work.config, adapters)
                _end_with(merged, end)
                store_model(merged, merged.state_dict(), temporary, dtype)
                prepared.connector.tokenizer.save_pretrained(temporary)
        if work.rank.is_main:
            (temporary / "README.md").write_text(model_card(work.paths, work.config, work.plan), encoding="utf-8")
    prepared.connector.accelerator.wait_for_everyone()


def _bytes_of(weights: Iterable[torch.Tensor], dtype: torch.dtype | None = None) -> int:
    """The size of `weights` (whole, however they are sharded) in bytes, in their own type or in `dtype`."""
    return sum(weight.numel() * (dtype or weight.dtype).itemsize for weight in weights)


def _check_base(work: Work) -> None:
    from hpcjobs.engines.fingerprint import check_planned

    check_planned(work.config.model, work.plan.model, work.paths.root, work.config.run.allow_changed)


@contextlib.contextmanager
def _made(work: Work, target: Path, need: int) -> Iterator[Path]:
    """A temporary folder, which rank 0 renames to `target` at the end of the block, or removes after an error.

    Raises a DiskFullError, with `need` (bytes).
    """
    from hpcjobs.engines.read_back import StoredError

    temporary = temporary_name(target)
    try:
        with disk_errors(target, need=need, next_command=f"hpcjobs resume {work.paths.root}"):
            if work.rank.is_main:
                make_folder(temporary)
            with os_errors_of_libraries(temporary):
                yield temporary
            if work.rank.is_main:
                _name(temporary, target)
    except BaseException as error:
        if work.rank.is_main:
            shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, StoredError):
            again = f"hpcjobs resume {work.paths.root}"
            raise StoredError(f"{error}\nnext: {again} stores it again; its last checkpoint is there") from error
        raise


def _learned_end(work: Work, prepared: Prepared) -> int | None:
    """The token with which the samples of this run end."""
    tokens = TokenFile(work.paths.tokens)
    whole = (tokens.sample(number) for number in range(min(len(tokens), _SAMPLES_FOR_END)))
    samples = ((ids.tolist(), learned.tolist()) for ids, learned in whole)
    return learned_end(samples, prepared.connector.tokenizer)


def _end_with(model: PreTrainedModel, end: int | None) -> None:
    """Add the end token that was trained to generation_config.json, beside those of the base model."""
    named = model.generation_config.eos_token_id
    known = list(named) if isinstance(named, list | tuple) else [] if named is None else [named]
    if end is not None and end not in known:
        model.generation_config.eos_token_id = [*known, end]


def write_adapter(work: Work, prepared: Prepared, target: Path) -> None:
    """All ranks together: write the current adapter to the folder `target`, in peft's format, which names its base
    model.
    """
    from hpcjobs.engines.read_back import prove_stored

    adapters, plain = trained_weights(prepared.state), prepared.state.plain
    with _made(work, target, _bytes_of(adapters.values())) as temporary:
        if work.rank.is_main:
            plain.save_pretrained(temporary, state_dict=adapters, safe_serialization=True, save_embedding_layers=False)
            prove_stored(temporary, _by_peft(plain, adapters), "adapter_model.safetensors")
            (temporary / "README.md").write_text(adapter_card(work.paths, work.config, work.plan), encoding="utf-8")
    prepared.connector.accelerator.wait_for_everyone()


def _by_peft(model: PreTrainedModel, adapters: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The adapters by the names that they have in peft's files."""
    import peft

    named: dict[str, torch.Tensor] = peft.get_peft_model_state_dict(
        model, state_dict=dict(adapters), save_embedding_layers=False
    )
    return named


def merged_model(config: Config, adapters: Mapping[str, torch.Tensor]) -> PreTrainedModel:
    """The base model on CPU in float32, with `adapters` (by their names in the adapted model) merged into it."""
    import torch

    from hpcjobs.engines.loader import ModelSource, fresh_model, load_model
    from hpcjobs.training.setup import adapted

    model = config.model
    source = ModelSource.of(model)
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
    """Make a finished folder durable and private, and rename it; an existing one is replaced."""
    for folder, _, names in os.walk(temporary):  # named chat templates have a folder of their own
        for path in (Path(folder, name) for name in names):
            hide(path)
            with path.open("rb") as file:
                os.fsync(file.fileno())
        hide(Path(folder))
        sync_folder(Path(folder))
    shutil.rmtree(target, ignore_errors=True)
    os.rename(temporary, target)
    sync_folder(target.parent)
