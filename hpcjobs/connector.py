"""AccelerateConnector: one class for inference and fine-tuning, on 1, 2, 4 or N processes without code changes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hpcjobs.config import GenerationConfig
from hpcjobs.distributed.rank import Rank
from hpcjobs.engines.base import BatchSize, Engine, Source
from hpcjobs.engines.loader import ModelSource, fresh_model, load_model, precision_dtype
from hpcjobs.errors import HpcJobsError, UsageError, did_you_mean
from hpcjobs.requests import Completion, Prompt, Request, TaskType

if TYPE_CHECKING:
    import torch
    from accelerate import Accelerator, PartialState
    from torch.utils.data import DataLoader
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from transformers.utils import ModelOutput

T = TypeVar("T")
log = logging.getLogger(__name__)
MIXED_PRECISIONS = ("no", "bf16", "fp16")


@dataclass(frozen=True, kw_only=True)
class ConnectorOptions:
    """What is seldom set: the model's pin, its dtype on load, GPUs for one replica, the group's deadline (s), and the
    engine (`model.engine`).

    `fresh`: the seed of random weights instead of the model's own. `accelerator`: more arguments of accelerate's
    Accelerator.
    """

    revision: str | None = None
    dtype: torch.dtype | None = None
    trust_remote_code: bool = False
    gpus_per_rank: int = 1
    timeout: float = 600.0
    engine: str = "auto"
    fresh: int | None = None
    accelerator: Mapping[str, object] = field(default_factory=dict)


class AccelerateConnector:
    """A model on this process's device, and its share of a data set.

    Under `accelerate launch`, torchrun or a step of this project the processes form a group; alone there is
    none. `state` may be given where the group was joined before. Completions of a sample do not depend on
    the number of processes.
    """

    def __init__(
        self,
        model_name: str,
        cache_dir: str | None = None,
        batch_size: BatchSize = 1,
        mixed_precision: str = "bf16",
        generation: GenerationConfig | None = None,
        options: ConnectorOptions | None = None,
    ) -> None:
        if mixed_precision not in MIXED_PRECISIONS:
            raise UsageError(f"mixed_precision {mixed_precision!r} is not one of {', '.join(MIXED_PRECISIONS)}")
        if batch_size != "auto" and batch_size < 1:
            raise UsageError(f"batch_size {batch_size} is not a number of samples")
        self.options = options or ConnectorOptions()
        self.source = ModelSource(model_name, self.options.revision, cache_dir, self.options.trust_remote_code)
        self.batch_size, self.mixed_precision = batch_size, mixed_precision
        self.generation = generation or GenerationConfig()
        self._model: PreTrainedModel | None = None
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._state: PartialState | None = None
        self._accelerator: Accelerator | None = None

    @property
    def state(self) -> PartialState:
        """accelerate's state; joins the group on first use."""
        if self._state is None:
            from accelerate import PartialState

            from hpcjobs.distributed.group import join_group

            # A second one in a process, or the user's own Accelerator before it: the group is there already.
            joined = PartialState._shared_state != {}
            self._state = PartialState() if joined else join_group(Rank.from_env(), None, self.options.timeout)
        return self._state

    @property
    def is_main_process(self) -> bool:
        return bool(self.state.is_main_process)

    @property
    def model(self) -> PreTrainedModel:
        self.load_model_once()
        return self._model

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        self.load_model_once()
        return self._tokenizer

    def load_model_once(self) -> None:
        """Load model and tokenizer onto this process's device; later calls do nothing."""
        if self._model is None:
            import torch

            device = self.state.device
            if device.type == "cpu" and self.state.is_main_process:
                log.info("no GPU answers: the model runs on CPU")
            if "fsdp_plugin" in self.options.accelerator:
                device = torch.device("cpu")  # the whole may not fit a GPU: each gets its part from there
            if self.options.fresh is not None:
                self._model, self._tokenizer = fresh_model(self.source, device, self.options.fresh)
                return
            self._model, self._tokenizer = load_model(self.source, device, self._dtype(), self.options.gpus_per_rank)

    def _dtype(self) -> torch.dtype | None:
        """Weights for inference: what was asked, else float32 on CPU and the mixed precision's type on a GPU."""
        if self.options.dtype is not None or self.state.device.type == "cpu":
            return self.options.dtype
        return precision_dtype(self.mixed_precision)

    def engine(
        self, generation: GenerationConfig | None = None, task: TaskType = "generate", deterministic: bool = False
    ) -> Engine:
        """The engine that runs this model: for answers, or for log-likelihoods.

        `deterministic`: nothing is kept over a pause of the source, so what comes after it is the same on any rank.
        """
        from hpcjobs.engines.pick import EngineSpec, make_engine

        spec = EngineSpec(self.options.engine, self.batch_size, Rank.from_env().local_world_size, deterministic, task)
        return make_engine(self.model, self.tokenizer, generation or self.generation, spec)

    def complete(self, messages: Prompt, *, seed: int = 0, **kwargs: object) -> Completion:
        """The completion of one chat or prompt; `kwargs` are fields of GenerationConfig for this call."""
        return self.complete_batch([messages], seed=seed, **kwargs)[0]

    def complete_batch(self, messages_batch: Sequence[Prompt], *, seed: int = 0, **kwargs: object) -> list[Completion]:
        """Completions in the order of the prompts; `kwargs` as in `complete`, `seed` is for sampling."""
        engine = self.engine(self._generation(kwargs))
        requests = (
            Request(index=n, id=str(n), prompt=prompt, seed=seed + n) for n, prompt in enumerate(messages_batch)
        )
        return sorted(engine.stream(requests), key=lambda completion: completion.index)

    def _generation(self, changes: Mapping[str, object]) -> GenerationConfig:
        for name in changes:
            if name not in GenerationConfig.model_fields:
                valid = GenerationConfig.model_fields
                raise UsageError(f"unknown option {name!r}{did_you_mean(name, valid)}; valid: {', '.join(valid)}, seed")
        values = self.generation.model_dump() | dict(changes)
        values["stop"] = (values["stop"],) if isinstance(values["stop"], str) else tuple(values["stop"] or ())
        return GenerationConfig.model_validate(values)

    def stream(self, requests: Source) -> Iterator[Completion]:
        """Iterator in, iterator out, in any order: what the worker uses."""
        return self.engine().stream(requests)

    def split_dataset(self, dataset: Any) -> Any:
        """This process's part: items r, r+W, r+2W... No padding, no duplicates, sizes differ by at most one.

        A `datasets.Dataset` gives a Dataset, any other sequence a list.
        """
        rank, world = self.state.process_index, self.state.num_processes
        mine = range(rank, len(dataset), world)
        return dataset.select(mine) if hasattr(dataset, "select") else [dataset[index] for index in mine]

    def gather_results(self, results: Sequence[T]) -> list[T]:
        """On the main process all processes' results in input order, on the others an empty list.

        Each gives one result for each item of its `split_dataset`, in that order.
        """
        if self.state.num_processes == 1:
            return list(results)
        import torch.distributed as dist

        parts: list[list[T]] | None = [[]] * self.state.num_processes if self.is_main_process else None
        dist.gather_object(list(results), parts, dst=0)
        return interleave(parts) if parts is not None else []

    def prepare_for_training(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, *dataloaders: DataLoader[Any]
    ) -> tuple[Any, ...]:
        """(model, optimizer, *dataloaders) ready for a distributed loop; the precision is `mixed_precision`.

        Weights are trained in float32, under autocast where the precision is a lower one.
        """
        if any(p.is_floating_point() and p.element_size() < 4 for p in model.parameters()):
            model.float()  # in place: the optimizer keeps its parameters
        model.train()
        return tuple(self.accelerator.prepare(model, optimizer, *dataloaders))

    @property
    def accelerator(self) -> Accelerator:
        """accelerate's Accelerator over the same group, made on first use."""
        if self._accelerator is None:
            from accelerate import Accelerator

            cpu = self.state.device.type == "cpu"
            self._accelerator = Accelerator(mixed_precision=self.mixed_precision, cpu=cpu, **self.options.accelerator)
        return self._accelerator

    def backward(self, loss: torch.Tensor | ModelOutput) -> None:
        """Backward pass of a loss, or of the `loss` of what a model gave; gradients are averaged over all processes."""
        self.accelerator.backward(getattr(loss, "loss", loss))

    def save_model(self, model: torch.nn.Module, output_dir: str | Path) -> None:
        """Write safetensors, config and tokenizer that plain `from_pretrained` loads; returns when it is whole."""
        accelerator = self.accelerator
        accelerator.wait_for_everyone()
        state_dict = accelerator.get_state_dict(model)
        if accelerator.is_main_process:
            folder, plain = Path(output_dir), accelerator.unwrap_model(model)
            # Gathered from shards, tied weights are tensors of their own: each of them once.
            tied = {name for name, _ in plain.named_parameters(remove_duplicate=False)}
            tied -= {name for name, _ in plain.named_parameters()}
            state_dict = {name: tensor for name, tensor in state_dict.items() if name not in tied}
            plain.save_pretrained(folder, state_dict=state_dict, safe_serialization=True)
            self.tokenizer.save_pretrained(folder)
        accelerator.wait_for_everyone()


def interleave(parts: Sequence[Sequence[T]]) -> list[T]:
    """Items r, r+W, r+2W... of each rank r back in one order; an HpcJobsError where the sizes cannot be a split."""
    total = sum(len(part) for part in parts)
    world = len(parts)
    sizes = [len(range(rank, total, world)) for rank in range(world)]
    if [len(part) for part in parts] != sizes:
        raise HpcJobsError(
            f"gather_results: ranks gave {[len(part) for part in parts]} results where a split of {total} has {sizes}: "
            "each rank gives one result for each item of its split_dataset"
        )
    return [parts[index % world][index // world] for index in range(total)]
