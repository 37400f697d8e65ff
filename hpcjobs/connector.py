"""AccelerateConnector: one class for inference and fine-tuning, on 1, 2, 4 or N processes without code changes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hpcjobs.config import GenerationConfig, WeightsConfig
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
    """Less common options of the connector.

    `revision` pins the model, `dtype` is the type of its weights on load (default: float32 on CPU, that of
    `mixed_precision` on GPU), `gpus_per_rank` is the number of GPUs that one copy of the model spans, `timeout` is how
    long to wait for the other processes (seconds), `engine` is the config's `model.engine`. `fresh` is a seed: random
    weights are made from it instead of loading the model's own. `weights` says which of its weights may be absent or
    unused, or have other names. `accelerator` has further arguments for
    `accelerate.Accelerator`.
    """

    revision: str | None = None
    dtype: torch.dtype | None = None
    trust_remote_code: bool = False
    gpus_per_rank: int = 1
    timeout: float = 600.0
    engine: str = "auto"
    fresh: int | None = None
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    accelerator: Mapping[str, object] = field(default_factory=dict)


class AccelerateConnector:
    """A model on this process's device, and this process's share of a data set.

    Under `accelerate launch`, torchrun or srun the processes form a group; a single process needs none. The completion
    of a sample does not depend on the number of processes.
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
        self.source = ModelSource(
            model_name, self.options.revision, cache_dir, self.options.trust_remote_code, self.options.weights
        )
        self.batch_size, self.mixed_precision = batch_size, mixed_precision
        self.generation = generation or GenerationConfig()
        self._model: PreTrainedModel | None = None
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._state: PartialState | None = None
        self._accelerator: Accelerator | None = None

    @property
    def state(self) -> PartialState:
        """accelerate's `PartialState`. The process joins the group on first use."""
        if self._state is None:
            from accelerate import PartialState

            from hpcjobs.distributed.group import join_group

            # A second connector, or the user's own Accelerator before it: the group exists already.
            joined = PartialState._shared_state != {}
            self._state = PartialState() if joined else join_group(Rank.from_env(), None, self.options.timeout)
        return self._state

    @property
    def is_main_process(self) -> bool:
        """Whether this is process 0 of the group."""
        return bool(self.state.is_main_process)

    @property
    def model(self) -> PreTrainedModel:
        """The model, loaded on first use."""
        self.load_model_once()
        return self._model

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer, loaded with the model on first use."""
        self.load_model_once()
        return self._tokenizer

    def load_model_once(self) -> None:
        """Load the model and its tokenizer onto this process's device. Later calls do nothing."""
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
        """The dtype of weights for inference: the configured one, else float32 on CPU and that of `mixed_precision` on
        GPU.
        """
        if self.options.dtype is not None or self.state.device.type == "cpu":
            return self.options.dtype
        return precision_dtype(self.mixed_precision)

    def engine(
        self, generation: GenerationConfig | None = None, task: TaskType = "generate", deterministic: bool = False
    ) -> Engine:
        """The engine that runs this model, for completions or log-likelihoods.

        With `deterministic` it finishes all running samples whenever the source of requests pauses, so that later
        completions do not depend on earlier ones.
        """
        from hpcjobs.engines.pick import EngineSpec, make_engine

        spec = EngineSpec(self.options.engine, self.batch_size, Rank.from_env().local_world_size, deterministic, task)
        return make_engine(self.model, self.tokenizer, generation or self.generation, spec)

    def complete(self, messages: Prompt, *, seed: int = 0, **kwargs: object) -> Completion:
        """The completion of one chat or prompt. `kwargs` are fields of GenerationConfig for this call."""
        return self.complete_batch([messages], seed=seed, **kwargs)[0]

    def complete_batch(self, messages_batch: Sequence[Prompt], *, seed: int = 0, **kwargs: object) -> list[Completion]:
        """The completions, in the order of the prompts. `kwargs` as in `complete`, `seed` is for sampling.

        Raises a UsageError for an unknown option.
        """
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
        """Completions of an iterator of requests as they finish, in any order. The worker uses this."""
        return self.engine().stream(requests)

    def split_dataset(self, dataset: Any) -> Any:
        """This process's share: items r, r+W, r+2W... for rank r of W. No padding, no duplicates; sizes differ by at
        most one.

        Returns a Dataset for a `datasets.Dataset`, and a list for any other sequence.
        """
        rank, world = self.state.process_index, self.state.num_processes
        mine = range(rank, len(dataset), world)
        return dataset.select(mine) if hasattr(dataset, "select") else [dataset[index] for index in mine]

    def gather_results(self, results: Sequence[T]) -> list[T]:
        """The results of all processes in input order on the main process; an empty list on the others.

        Each process passes one result for each item of its `split_dataset`, in that order.
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
        """`(model, optimizer, *dataloaders)`, prepared by accelerate for a distributed loop.

        Weights are trained in float32, under autocast if `mixed_precision` is bf16 or fp16.
        """
        if any(p.is_floating_point() and p.element_size() < 4 for p in model.parameters()):
            model.float()  # in place: the optimizer keeps its parameters
        model.train()
        return tuple(self.accelerator.prepare(model, optimizer, *dataloaders))

    @property
    def accelerator(self) -> Accelerator:
        """The `accelerate.Accelerator` of the same group, made on first use."""
        if self._accelerator is None:
            from accelerate import Accelerator

            cpu = self.state.device.type == "cpu"
            self._accelerator = Accelerator(mixed_precision=self.mixed_precision, cpu=cpu, **self.options.accelerator)
        return self._accelerator

    def backward(self, loss: torch.Tensor | ModelOutput) -> None:
        """Run the backward pass of a loss, or of the `loss` attribute of a model's output.

        Gradients are averaged over all processes.
        """
        self.accelerator.backward(getattr(loss, "loss", loss))

    def save_model(self, model: torch.nn.Module, output_dir: str | Path, dtype: torch.dtype | None = None) -> None:
        """Save safetensors, config and tokenizer, as `from_pretrained` loads them. Returns when all files are written.

        `dtype` is the type of the stored weights; None: that in which they are trained.
        """
        from hpcjobs.engines.store import store_model

        accelerator = self.accelerator
        accelerator.wait_for_everyone()
        state_dict = accelerator.get_state_dict(model)
        if accelerator.is_main_process:
            store_model(accelerator.unwrap_model(model), state_dict, Path(output_dir), dtype)
            self.tokenizer.save_pretrained(output_dir)
        accelerator.wait_for_everyone()


def interleave(parts: Sequence[Sequence[T]]) -> list[T]:
    """The parts of ranks 0..W-1, as `split_dataset` makes them, in input order.

    Raises an HpcJobsError if their sizes cannot come from one split.
    """
    total = sum(len(part) for part in parts)
    world = len(parts)
    sizes = [len(range(rank, total, world)) for rank in range(world)]
    if [len(part) for part in parts] != sizes:
        raise HpcJobsError(
            f"gather_results: ranks gave {[len(part) for part in parts]} results where a split of {total} has {sizes}: "
            "each rank gives one result for each item of its split_dataset"
        )
    return [parts[index % world][index // world] for index in range(total)]
