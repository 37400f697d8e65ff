"""FSDP2 through accelerate, on GPUs and, for tests and small clusters, on CPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcjobs.config import TrainConfig

if TYPE_CHECKING:
    from accelerate import Accelerator, FullyShardedDataParallelPlugin


def fsdp_plugin(train: TrainConfig) -> FullyShardedDataParallelPlugin:
    """accelerate's FSDP2 plugin for `train.fsdp`."""
    from accelerate import FullyShardedDataParallelPlugin

    fsdp = train.fsdp
    return FullyShardedDataParallelPlugin(
        fsdp_version=2, reshard_after_forward=fsdp.reshard_after_forward, cpu_offload=fsdp.cpu_offload,
        auto_wrap_policy=fsdp.auto_wrap_policy, min_num_params=fsdp.min_num_params,
        transformer_cls_names_to_wrap=list(fsdp.transformer_cls_names_to_wrap) or None,
        activation_checkpointing=fsdp.activation_checkpointing, state_dict_type="FULL_STATE_DICT",
    )  # fmt: skip


def shard_on_cpus(accelerator: Accelerator, plugin: FullyShardedDataParallelPlugin) -> None:
    """Make accelerate shard over several CPU processes too.

    torch's `fully_shard` runs on gloo, but accelerate (1.13) uses the plugin only if its state is MULTI_GPU or similar;
    on CPUs it would silently use DDP.
    """
    from accelerate import PartialState
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType

    if accelerator.distributed_type != DistributedType.MULTI_CPU:
        return
    for shared in (AcceleratorState._shared_state, PartialState._shared_state):
        shared["distributed_type"] = DistributedType.FSDP
    accelerator.state.fsdp_plugin = plugin
