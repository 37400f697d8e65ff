"""AccelerateConnector: one class for inference and fine-tuning, on 1, 2, 4 or N processes without code changes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from hpcjobs.config import GenerationConfig, WeightsConfig
from hpcjobs.distributed.rank import Rank
from hpcjobs.distributed.split_gather import gather, split
from hpcjobs.distributed.together import Peers
from hpcjobs.engines.base import BatchSize, Engine, Source
from hpcjobs.engines.loader import ModelSource, fresh_model, load_model, precision_dtype
from hpcjobs.engines.prompt_batch import MISSING, prompt_batch
from hpcjobs.errors import UsageError, did_you_mean
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
        if batch_size != "auto" and (not isinstance(batch_size, int) or batch_size < 1):
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
        self._group: Peers | None = None
        self._part: object = None
        self._process = os.getpid()

    @property
    def state(self) -> PartialState:
        """accelerate's `PartialState`. The process joins the group on first use."""
        if self._state is None or self._process != os.getpid():  # a notebook's launcher forks
            from hpcjobs.distributed.group import join_once

            self._state, self._group = join_once(Rank.from_env(), self.options.timeout), None
            self._process = os.getpid()
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

    def complete_batch(self, messages_batch: Iterable[Prompt], *, seed: int = 0, **kwargs: object) -> list[Completion]:
        """The completions, in the order of the prompts: texts, chats, or both. `kwargs` as in `complete`, `seed` is for
        sampling.

        A prompt that cannot be run, or is None, has a completion with an `error`. Raises a UsageError, before the model
        runs, for an unknown option, or what is no list of prompts.
        """
        prompts, generation = prompt_batch(messages_batch), self._generation(kwargs)
        requests = (
            Request(index=n, id=str(n), prompt=prompt, seed=seed + n)
            for n, prompt in enumerate(prompts)
            if prompt is not None
        )
        done = [Completion.failed(n, MISSING) for n, prompt in enumerate(prompts) if prompt is None]
        if len(done) < len(prompts):
            done += self.engine(generation).stream(requests)
        return sorted(done, key=lambda completion: completion.index)

    def _generation(self, changes: Mapping[str, object]) -> GenerationConfig:
        for name in changes:
            if name not in GenerationConfig.model_fields:
                valid = GenerationConfig.model_fields
                raise UsageError(f"unknown option {name!r}{did_you_mean(name, valid)}; valid: {', '.join(valid)}, seed")
        values = self.generation.model_dump() | dict(changes)
        if values["stop"] is None or isinstance(values["stop"], str | list):
            values["stop"] = (values["stop"],) if isinstance(values["stop"], str) else tuple(values["stop"] or ())
        try:
            return GenerationConfig.model_validate(values)
        except ValidationError as error:
            wrong = error.errors()[0]
            option = str(wrong["loc"][0])
            raise UsageError(f"{option} {values[option]!r}: {wrong['msg']}") from None

    def stream(self, requests: Source) -> Iterator[Completion]:
        """Completions of an iterator of requests as they finish, in any order. The worker uses this."""
        return self.engine().stream(requests)

    def split_dataset(self, dataset: object) -> Any:
        """This process's share: items r, r+W, r+2W... for rank r of W. No padding, no duplicates; sizes differ by at
        most one.

        Tables of `datasets`, pandas and pyarrow, arrays, tensors and dicts of columns stay what they are; streams stay
        streams, a torch Dataset becomes a Subset, and other sequences and iterables become a list. Every process
        passes the same data, and all of them call this: it raises a UsageError on each where one has other data, or
        what cannot be split.
        """
        self._part = split(self._peers(), dataset)
        return self._part

    def gather_results(self, results: Iterable[T]) -> list[T]:
        """The results of all processes in input order on the main process; an empty list on the others.

        Each process passes one result for each item of its `split_dataset`, in that order; in an array or tensor each
        row is one. Tensors come on the CPU. Waits as long as the other processes work. Raises a UsageError on every
        process where the numbers of results do not fit, or one cannot be sent.
        """
        return gather(self._peers(), results)

    def _peers(self) -> Peers | None:
        """The other processes, in a group of their own; None where there are none."""
        if self._group is None and self.state.num_processes > 1:
            self._group = Peers(self.state.process_index, self.state.num_processes)
        return self._group

    def prepare_for_training(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, *dataloaders: DataLoader[object]
    ) -> tuple[Any, ...]:
        """`(model, optimizer, *dataloaders)`, prepared by accelerate for a distributed loop.

        Weights are trained in float32, under autocast if `mixed_precision` is bf16 or fp16. Each process gets its share
        of the batches. Raises a UsageError for a loader over a part of `split_dataset`, which would be split again.
        """
        parts = [loader for loader in dataloaders if getattr(loader, "dataset", dataloaders) is self._part]
        if parts and self.state.num_processes > 1:
            raise UsageError(
                "prepare_for_training: a DataLoader has a part of split_dataset, and its batches would be split once "
                "more: give it the whole data set"
            )
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

