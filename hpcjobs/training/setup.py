"""Set up a training from its config: connector, model, optimizer and scheduler."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpcjobs.config import Config, TrainConfig
from hpcjobs.connector import AccelerateConnector, ConnectorOptions
from hpcjobs.engines.weights import AdapterError, check_targets, quantised_error, tied_targets_error
from hpcjobs.errors import ConfigError
from hpcjobs.training.checkpoints.state import State
from hpcjobs.training.data.tokens import TokenFacts
from hpcjobs.training.fsdp import fsdp_plugin, shard_on_cpus
from hpcjobs.training.loss import PackedBy
from hpcjobs.training.packed_rows import packed_by

if TYPE_CHECKING:
    import torch
    from accelerate import FullyShardedDataParallelPlugin
    from torch.optim.lr_scheduler import LRScheduler
    from transformers import PreTrainedModel

    from hpcjobs.distributed.work import Work

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """The objects that the training loop uses; `packed` is the way of packed rows, if there are some."""

    connector: AccelerateConnector
    state: State
    precision: str
    packed: PackedBy


def prepare(work: Work, facts: TokenFacts) -> Prepared:
    """Join the process group, load the model, and prepare it for a training of `facts.steps` steps.

    Raises a PackingError if the rows are to be packed, and the model cannot run such rows.
    """
    from hpcjobs.training.checkpoints.state import seed_all

    train = work.config.train
    connector, precision = make_connector(work)
    connector.load_model_once()
    packed = packed_by(connector.model, facts.longest) if train.packing else PackedBy.POSITIONS
    seed_all(work.config.run.seed, 0, 0)  # adapters begin the same on all ranks: FSDP keeps a part of each rank's own
    model = adapted(connector.model, work.config)
    seed_all(work.config.run.seed, 0, work.rank.rank)
    if train.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if train.lora.rank:
            model.enable_input_require_grads()
    counts = _counts(model)
    optimizer = make_optimizer(model, train)
    if train.fsdp.enabled:
        shard_on_cpus(connector.accelerator, connector.options.accelerator["fsdp_plugin"])
    model, optimizer = connector.prepare_for_training(model, optimizer)
    if work.rank.is_main and train.lora.rank:
        log.info("adapters of rank %d: %d of %d weights are trained", train.lora.rank, *counts)
    if work.rank.is_main:
        log.info("%s on %s, precision %s", type(model).__name__, connector.state.device, precision)
    scheduler = make_scheduler(getattr(optimizer, "optimizer", optimizer), train, facts.steps)
    return Prepared(connector, State(connector.accelerator, model, optimizer, scheduler), precision, packed)


def make_connector(work: Work) -> tuple[AccelerateConnector, str]:
    """The connector, in the process group of all ranks (NCCL on GPUs, gloo on CPUs), and the precision `auto` resolves
    to.
    """
    import torch

    from hpcjobs.distributed.group import join_group
    from hpcjobs.distributed.rendezvous import Rendezvous

    model, run, train = work.config.model, work.config.run, work.config.train
    gpu = torch.cuda.is_available()
    rendezvous = Rendezvous.of(work.paths.rendezvous, work.rank, run.rendezvous_timeout)
    # The timeout holds for every collective too, and one may have to wait for a checkpoint to be written.
    join_group(work.rank, rendezvous, max(run.rendezvous_timeout, run.progress_timeout), "nccl" if gpu else "gloo")
    precision = train.mixed_precision
    if precision == "auto":
        precision = "bf16" if gpu and torch.cuda.is_bf16_supported() else "no"
    elif precision == "fp16" and not gpu:
        raise ConfigError("train.mixed_precision fp16 needs a GPU: on CPUs it is no or bf16")
    options = ConnectorOptions(
        revision=model.revision,
        dtype=torch.float32,
        trust_remote_code=model.trust_remote_code,
        weights=model.weights,
        gpus_per_rank=1,
        timeout=run.rendezvous_timeout,
        fresh=run.seed if train.init == "random" else None,
        accelerator=_accelerator(train),
    )
    return AccelerateConnector(model.name, mixed_precision=precision, options=options), precision


def _accelerator(train: TrainConfig) -> Mapping[str, FullyShardedDataParallelPlugin]:
    """Further arguments for accelerate's Accelerator."""
    return {"fsdp_plugin": fsdp_plugin(train)} if train.fsdp.enabled else {}


def adapted(model: PreTrainedModel, config: Config) -> PreTrainedModel:
    """The model, with LoRA adapters if the config sets a rank.

    Raises a ConfigError if peft is missing, or cannot adapt what the config names.
    """
    lora = config.train.lora
    if (quantizer := getattr(model, "hf_quantizer", None)) is not None:
        raise quantised_error(config.model.name, getattr(quantizer.quantization_config, "quant_method", "unknown"))
    if lora.rank is None:
        return model
    try:
        import peft
    except ImportError:
        raise ConfigError("train.lora needs peft: pip install 'hpcjobs[train]'") from None
    check_targets(lora.target_modules, _layers(model))
    model.requires_grad_(False)
    how = peft.LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, task_type="CAUSAL_LM",
        target_modules=list(lora.target_modules) or "all-linear", revision=config.model.revision,
    )  # fmt: skip
    try:
        whole = peft.get_peft_model(model, how)
    except ValueError as error:  # a kind of layer that it has no adapter for
        raise AdapterError(f"train.lora: peft cannot adapt this model: {error}") from error
    if tied := _tied_targets(whole):
        raise tied_targets_error(tied)
    return whole


def _layers(model: PreTrainedModel) -> set[str]:
    """The modules whose weight is a matrix."""
    weights = ((name, getattr(module, "weight", None)) for name, module in model.named_modules())
    return {name for name, weight in weights if getattr(weight, "ndim", 0) == 2}


def _tied_targets(model: PreTrainedModel) -> list[str]:
    """The adapted modules whose base weight is also that of another module."""
    owners: dict[int, int] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        if "lora_" not in name:
            owners[id(weight)] = owners.get(id(weight), 0) + 1
    return [
        name.removeprefix("base_model.model.")
        for name, module in model.named_modules()
        if hasattr(module, "lora_A") and owners.get(id(getattr(module.base_layer, "weight", None)), 0) > 1
    ]


def _counts(model: PreTrainedModel) -> tuple[int, int]:
    """(number of trained weights, number of all weights)."""
    sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def make_optimizer(model: PreTrainedModel, train: TrainConfig) -> torch.optim.Optimizer:
    """AdamW; one-dimensional weights (norms, biases) have no weight decay."""
    import torch

    trained = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in trained if weight.ndim > 1], "weight_decay": train.weight_decay},
        {"params": [weight for weight in trained if weight.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=train.learning_rate, betas=train.betas, fused=True)


def make_scheduler(optimizer: torch.optim.Optimizer, train: TrainConfig, steps: int) -> LRScheduler:
    """transformers' scheduler of this name, stepped once per global batch."""
    from transformers import get_scheduler

    more = {}
    if train.scheduler == "cosine_with_min_lr":
        more["scheduler_specific_kwargs"] = {"min_lr": train.min_learning_rate}
    made: LRScheduler = get_scheduler(
        train.scheduler, optimizer, num_warmup_steps=train.warmup_steps, num_training_steps=steps, **more
    )
    return made
