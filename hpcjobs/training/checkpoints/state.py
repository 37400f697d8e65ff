"""The state of a training at a step: weights, optimizer, scheduler and random states; saved and restored exactly."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

import numpy as np

from hpcjobs.errors import HpcJobsError
from hpcjobs.run_folder.files import read_json
from hpcjobs.tasks.seeds import sample_seed
from hpcjobs.training.checkpoints.checkpoint import MANIFEST

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator
    from torch.optim.lr_scheduler import LRScheduler
    from torch.optim.optimizer import StateDict
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
Weights = dict[str, "torch.Tensor"]
WEIGHTS, OPTIMIZER, RANDOM = "weights.safetensors", "optimizer.pt", "random.pt"


class RandomState(TypedDict, total=False):
    """The states of a rank's random generators."""

    python: tuple[int, Sequence[int], float | None]
    numpy: tuple[str, torch.Tensor, int, int, float]
    torch: torch.Tensor
    cuda: torch.Tensor


@dataclass(frozen=True)
class State:
    """The objects whose state a checkpoint holds; `model` is the prepared one."""

    accelerator: Accelerator
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler

    @property
    def sharded(self) -> bool:
        """Whether each rank has only a shard of the weights (FSDP2)."""
        return bool(getattr(self.accelerator, "is_fsdp2", False))

    @property
    def plain(self) -> PreTrainedModel:
        """The model without its DDP wrapper."""
        return self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=True)


@dataclass(frozen=True)
class StepState:
    """The state of a step, on rank 0, as tensors. Training goes on to change them, unless this is a `copy`."""

    weights: Weights
    rest: dict[str, StateDict]
    randoms: list[RandomState]

    @property
    def size(self) -> int:
        """Bytes of its tensors."""
        return sum(tensor.nbytes for tensor in _tensors([self.weights, self.rest]))

    def copy(self) -> StepState:
        """A copy in host memory."""
        return StepState(_copied(self.weights), _copied(self.rest), self.randoms)

    def write(self, folder: Path) -> None:
        """Write its three files to `folder`."""
        import torch
        from safetensors.torch import save_file

        save_file({name: tensor.contiguous() for name, tensor in self.weights.items()}, folder / WEIGHTS)
        torch.save(self.rest, folder / OPTIMIZER)
        torch.save(self.randoms, folder / RANDOM)


def capture(state: State) -> StepState | None:
    """All ranks together: the current state on rank 0, None on the others."""
    randoms = _gathered(random_state())
    weights, optimizer = _sharded_state(state) if state.sharded else (_weights(state.plain), _optimizer(state))
    if not state.accelerator.is_main_process:
        return None
    rest = {"optimizer": optimizer, "scheduler": state.scheduler.state_dict()}
    if state.accelerator.scaler is not None:
        rest["scaler"] = state.accelerator.scaler.state_dict()
    return StepState(weights, rest, randoms)


def _tensors(value: object) -> Iterator[torch.Tensor]:
    """All tensors in dicts, lists and tuples."""
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _copied(value: object) -> Any:
    """Dicts, lists and tuples anew, their tensors copied into host memory."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    return value


def trained_weights(state: State) -> Weights:
    """All ranks together: the trained weights by their names in the model, whole on rank 0."""
    if not state.sharded:
        return _weights(state.plain)
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    how = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    whole = cast("Weights", get_model_state_dict(state.model, options=how))
    return _once(whole, state.model)


def restore(state: State, folder: Path, rank: int, seed: int) -> None:
    """Restore what a StepState wrote. With another number of ranks, random states are seeded anew by seed and step.

    Raises an HpcJobsError if the weights are of another model.
    """
    import torch
    from safetensors.torch import load_file

    weights = load_file(folder / WEIGHTS)
    rest = torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True)
    if state.sharded:
        _load_sharded(state, weights, _by_name(state, rest["optimizer"]))
    else:
        _load_weights(state.plain, weights, folder)
        _bare(state.optimizer).load_state_dict(rest["optimizer"])
    state.scheduler.load_state_dict(rest["scheduler"])
    if "scaler" in rest and state.accelerator.scaler is not None:
        state.accelerator.scaler.load_state_dict(rest["scaler"])
    randoms = torch.load(folder / RANDOM, map_location="cpu", weights_only=True)
    if len(randoms) == state.accelerator.num_processes:
        set_random_state(randoms[rank])
    else:
        seed_all(seed, int(read_json(folder / MANIFEST)["step"]), rank)


def seed_all(seed: int, step: int, rank: int) -> None:
    """Seed the random states of a rank at a step, from the run's seed."""
    import torch

    own = sample_seed(seed, f"step {step} rank {rank}")
    random.seed(own)
    np.random.seed(own % 2**32)
    torch.manual_seed(own)  # CUDA's as well


def _weights(model: torch.nn.Module) -> Weights:
    """The trained weights (tied ones once) and the persistent buffers. Frozen weights come from the model."""
    kept = {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}
    lasting = model.state_dict().keys()
    kept |= {name: buffer.detach() for name, buffer in model.named_buffers() if name in lasting}
    return kept


def _load_weights(model: torch.nn.Module, weights: Weights, folder: Path) -> None:
    import torch

    own = _weights(model)
    wrong = own.keys() ^ weights.keys() or {n for n, tensor in own.items() if tensor.shape != weights[n].shape}
    if wrong:
        raise HpcJobsError(f"checkpoint {folder} is of another model: {', '.join(sorted(wrong)[:4])}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(weights[name])


def _bare(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The torch optimizer inside accelerate's."""
    return getattr(optimizer, "optimizer", optimizer)


def _optimizer(state: State) -> StateDict:
    return _bare(state.optimizer).state_dict()


def _sharded_state(state: State) -> tuple[Weights, StateDict]:
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

    how = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    weights, optimizer = get_state_dict(state.model, _bare(state.optimizer), options=how)
    return _once(cast("Weights", weights), state.model), cast("StateDict", optimizer)


def _once(weights: Weights, model: torch.nn.Module) -> Weights:
    """The sharded counterpart of `_weights`: trained weights, by the first name of tied ones, and persistent buffers.
    """
    every = {_plain_name(name) for name, _ in model.named_parameters(remove_duplicate=False)}
    first = {_plain_name(name) for name, weight in model.named_parameters() if weight.requires_grad}
    return {name: tensor for name, tensor in weights.items() if name in first or name not in every}


def _plain_name(name: str) -> str:
    """A weight's name without accelerate's activation checkpointing wrapper."""
    return name.replace("_checkpoint_wrapped_module.", "")


def _by_name(state: State, optimizer: StateDict) -> StateDict:
    """An optimizer state with weights by name, as sharded optimizers have it, also if it has them by number.

    The order is the same, so an optimizer that is not sharded can load either.
    """
    names = {id(weight): _plain_name(name) for name, weight in state.model.named_parameters()}
    order: dict[Any, str] = dict(
        enumerate(names[id(weight)] for group in _bare(state.optimizer).param_groups for weight in group["params"])
    )
    return {
        "state": {order.get(key, key): value for key, value in optimizer["state"].items()},
        "param_groups": [
            group | {"params": [order.get(key, key) for key in group["params"]]} for group in optimizer["param_groups"]
        ],
    }


def _load_sharded(state: State, weights: Weights, optimizer: StateDict) -> None:
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_state_dict

    how = StateDictOptions(full_state_dict=True, strict=False)
    set_state_dict(
        state.model, _bare(state.optimizer), model_state_dict={**weights}, optim_state_dict=optimizer, options=how
    )


def _gathered(value: RandomState) -> list[RandomState]:
    """The values of all ranks, in order, on rank 0; unspecified on the others."""
    import torch.distributed as dist

    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [value]
    found: list[RandomState] | None = [{}] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(value, found, dst=0)
    return found or []


def random_state() -> RandomState:
    """The random states of this rank."""
    import torch

    kind, keys, place, has_gauss, cached = np.random.get_state(legacy=True)
    words = torch.from_numpy(np.array(keys, np.int64))
    state: RandomState = {
        "python": random.getstate(), "numpy": (kind, words, int(place), int(has_gauss), float(cached)),
        "torch": torch.get_rng_state(),
    }  # fmt: skip
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: RandomState) -> None:
    """Restore what `random_state` returned."""
    import torch

    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, place, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), place, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
