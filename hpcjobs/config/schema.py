"""The config schema: strict, validated once when it is read, and frozen."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from hpcjobs.config.checks import (
    BuiltInEngine,
    Line,
    Name,
    SbatchWord,
    csv_delimiter,
    engine_name,
    env_name,
    error_limit,
    metric_name,
    pattern,
    signal_name,
    slurm_minutes,
    slurm_time,
    sweep_points,
)
from hpcjobs.config.sbatch_options import check_memory, check_no_gpus, sbatch_key
from hpcjobs.requests import GenerationConfig, Truncate


class Section(BaseModel):
    """Base of all sections. Strict and frozen: an unknown key or a wrong type is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


class WeightsConfig(Section):
    """What to know of a model's weights: `rename` maps regular expressions of names in its files to the model's names.

    Names that match `allow_missing` may be absent from the files, those that match `allow_unexpected` unused.
    """

    rename: dict[Annotated[str, AfterValidator(pattern)], str] = {}
    allow_missing: tuple[str, ...] = ()
    allow_unexpected: tuple[str, ...] = ()


class ModelConfig(Section):
    """The model, and how a rank runs it. `dummy_delay` is in seconds per sample."""

    name: str = ""
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    engine: Annotated[BuiltInEngine | str, AfterValidator(engine_name)] = "auto"
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    gpus_per_rank: Annotated[int, Field(ge=1)] = 1
    trust_remote_code: bool = False
    weights: WeightsConfig = WeightsConfig()
    verify_weights: Literal["head", "full"] = "head"
    dummy_delay: Annotated[float, Field(ge=0)] = 0.0

    @pydantic.model_validator(mode="after")
    def _pinned(self) -> ModelConfig:
        if self.trust_remote_code and not self.revision:
            raise ValueError("model.trust_remote_code runs code from the hub: pin it with model.revision")
        return self


ColumnType = Literal["string", "int64", "float64", "bool", "json"]


def _type_name(word: object) -> object:
    """The type that Python's own name means."""
    return {"str": "string", "int": "int64", "float": "float64"}.get(word, word) if isinstance(word, str) else word


class DataConfig(Section):
    """The data set, and which of its rows. `name` is one data set or a list of files; `types` has CSV columns that are
    not text, and `delimiter` what stands between them (null: a comma, in a .tsv file a tab).
    """

    name: str | tuple[str, ...] = ""
    config: str | None = None
    split: str | None = None
    max_samples: Annotated[int, Field(ge=0)] | None = None
    id_column: str | None = None
    types: dict[str, Annotated[ColumnType, BeforeValidator(_type_name)]] = {}
    delimiter: Annotated[str, AfterValidator(csv_delimiter)] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The data set, or each of the files."""
        return (self.name,) if isinstance(self.name, str) else self.name

    @property
    def title(self) -> str:
        """The name in messages and reports."""
        more = f" and {len(self.names) - 1} more" if len(self.names) > 1 else ""
        return f"{self.names[0] if self.names else ''}{more}"


class Message(Section):
    """One turn of a chat; `content` is a jinja2 template over the row."""

    role: Literal["system", "user", "assistant"]
    content: str


class FewShotConfig(Section):
    """Few-shot examples before each prompt.

    They come from `data`, or (null) from the data set itself, without the sample's own row. `first` takes the first `k`
    rows for every sample; `random` draws `k` per sample, seeded by `seed` and the sample's id. `same` restricts the
    examples to rows with the sample's value in that column.
    """

    k: Annotated[int, Field(ge=0)] = 0
    data: str | None = None
    config: str | None = None
    split: str | None = None
    sampling: Literal["first", "random"] = "first"
    same: str | None = None
    seed: int = 0
    separator: str = "\n\n"


class TaskConfig(Section):
    """What the model is asked about each row, and how its answers are scored.

    `description` comes before all examples and the prompt; in a chat it is the system message. choice: `choices` is a
    template that gives a list, or one template per option; `delimiter` joins prompt and option, and an example's prompt
    and answer (null: a space, in a chat nothing). lm_eval: `name` is a task of lm-evaluation-harness, `include_path` a
    folder of task YAMLs; `chat_template` applies the model's chat template to its prompts; `samples` are the documents
    to ask about, by task; `predict_only` takes answers without scores.
    """

    type: Literal["generate", "choice", "perplexity", "lm_eval"] = "generate"
    name: str | None = None
    include_path: str | None = None
    chat_template: bool = False
    samples: dict[str, Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]] = {}
    predict_only: bool = False
    description: str | None = None
    messages: tuple[Message, ...] | None = None
    prompt: str | None = None
    target: str | None = None
    choices: str | tuple[str, ...] | None = None
    delimiter: str | None = None
    few_shot: FewShotConfig = FewShotConfig()
    truncate: Truncate | None = None
    repeats: Annotated[int, Field(ge=1)] = 1
    generation: GenerationConfig = GenerationConfig()
    extract: Annotated[str, Field(min_length=1), AfterValidator(pattern)] | None = None
    normalize: tuple[Literal["lower", "punctuation", "articles", "whitespace", "numbers"], ...] = ()
    metrics: tuple[Annotated[str, BeforeValidator(metric_name)], ...] = ()
    group_by: tuple[str, ...] = ()
    cluster_by: Annotated[str, Field(min_length=1)] | None = None


class RunConfig(Section):
    """The run: name, seed, sharding, timeouts and intervals (seconds)."""

    name: Name | None = None
    root: str | None = None
    seed: int = 0
    deterministic: bool = False
    sharding: Literal["dynamic", "static"] = "dynamic"
    chunk_size: Annotated[int, Field(ge=1)] | None = None
    lease_timeout: Annotated[float, Field(gt=0)] = 120.0
    heartbeat: Annotated[float, Field(gt=0)] = 5.0
    progress_timeout: Annotated[float, Field(gt=0)] = 1800.0
    metric_timeout: Annotated[float, Field(gt=0)] = 300.0
    auto_resume: Annotated[int, Field(ge=0)] = 3
    retries: Annotated[int, Field(ge=0)] = 0
    max_errors: Annotated[int | float, AfterValidator(error_limit)] = 0.1
    drain_margin: Annotated[float, Field(ge=0)] | None = None
    rendezvous_timeout: Annotated[float, Field(gt=0)] = 600.0
    allow_changed: bool = False
    shared: Literal["group"] | None = None

    @pydantic.model_validator(mode="after")
    def _heartbeat_in_time(self) -> RunConfig:
        if self.lease_timeout < 3 * self.heartbeat:
            raise ValueError(
                f"run.lease_timeout ({self.lease_timeout:g} s) must be at least 3 times run.heartbeat "
                f"({self.heartbeat:g} s): a healthy rank would lose its leases"
            )
        return self


class FsdpConfig(Section):
    """Fully sharded data parallel (FSDP2): weights, gradients and optimizer state are sharded over the ranks."""

    enabled: bool = False
    reshard_after_forward: bool = True
    cpu_offload: bool = False
    auto_wrap_policy: Literal["transformer_based_wrap", "size_based_wrap", "no_wrap"] = "transformer_based_wrap"
    transformer_cls_names_to_wrap: tuple[str, ...] = ()
    min_num_params: Annotated[int, Field(ge=1)] | None = None
    activation_checkpointing: bool = False


class LoraConfig(Section):
    """Low-rank adapters instead of full fine-tuning; off if `rank` is null. Empty `target_modules` means every linear
    layer.
    """

    rank: Annotated[int, Field(ge=1)] | None = None
    alpha: Annotated[int, Field(ge=1)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: tuple[str, ...] = ()


class TrainConfig(Section):
    """Supervised fine-tuning. A step is one global batch, which counts samples, or packed rows with `packing`."""

    model_config = Section.model_config | {"allow_inf_nan": False}

    init: Literal["pretrained", "random"] = "pretrained"
    epochs: Annotated[float, Field(gt=0)] | None = None
    max_steps: Annotated[int, Field(ge=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0)] = 2e-5
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup", "cosine_with_min_lr"] = "linear"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    min_learning_rate: Annotated[float, Field(ge=0)] = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    global_batch: Annotated[int, Field(ge=1)] = 8
    micro_batch: Annotated[int, Field(ge=1)] | None = None
    gradient_accumulation: Annotated[int, Field(ge=1)] | None = None
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    gradient_checkpointing: bool = False
    max_length: Annotated[int, Field(ge=2)] = 1024
    packing: bool = False
    group_by_length: bool = False
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    validation_split: str | None = None
    checkpoint_every: Annotated[int, Field(ge=1)] = 500
    async_checkpoints: Literal["auto"] | bool = "auto"
    keep: Annotated[int, Field(ge=1)] = 2
    keep_best: bool = False
    export: Literal["last", "best"] = "last"
    eval_every: Annotated[int, Field(ge=1)] | None = None
    then_eval: str | None = None
    then_eval_every: Annotated[int, Field(ge=1)] | None = None
    save_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    fsdp: FsdpConfig = FsdpConfig()
    lora: LoraConfig = LoraConfig()
    accelerate_config: str | None = None

    @pydantic.model_validator(mode="after")
    def _agree(self) -> TrainConfig:
        if self.epochs is not None and self.max_steps is not None:
            raise ValueError("train.epochs and train.max_steps are both set: a run has one of them")
        if self.validation_fraction and self.validation_split:
            raise ValueError("train.validation_fraction and train.validation_split are both set: leave one out")
        if self.needs_best and not (self.eval_every and (self.validation_fraction or self.validation_split)):
            raise ValueError(
                f"train.{'export best' if self.export == 'best' else 'keep_best'} goes by the validation loss: set "
                "train.eval_every, and train.validation_fraction or train.validation_split"
            )
        if self.then_eval_every and self.then_eval is None:
            raise ValueError("train.then_eval_every is for evals by train.then_eval, which is not set")
        if self.min_learning_rate and self.scheduler != "cosine_with_min_lr":
            raise ValueError("train.min_learning_rate is for train.scheduler cosine_with_min_lr")
        return self

    @property
    def needs_best(self) -> bool:
        """Whether the checkpoint with the lowest validation loss is kept: also for a model that is made of it."""
        return self.keep_best or self.export == "best"


class WarnConfig(Section):
    """The signal that a program gets before its time limit, before it is preempted or cancelled; `before` in seconds.
    """

    signal: Annotated[str, AfterValidator(signal_name)] = "USR1"
    before: Annotated[int, Field(ge=1, le=65535)] = 120


class ClusterConfig(Section):
    """The resources to request, with Slurm's names; `sbatch` has any other option."""

    executor: Literal["auto", "slurm", "local", "debug"] = "auto"
    nodes: Annotated[int, Field(ge=1)] = 1
    gpus: Annotated[int, Field(ge=0)] | None = None
    gpus_per_node: Annotated[int, Field(ge=0)] | None = None
    ntasks_per_node: Annotated[int, Field(ge=1)] | None = None
    cpus_per_task: Annotated[int, Field(ge=1)] | None = None
    mem: SbatchWord | None = None
    time: Annotated[Line | int, AfterValidator(slurm_time)] = "1:00:00"
    partition: SbatchWord | None = None
    account: SbatchWord | None = None
    qos: SbatchWord | None = None
    constraint: SbatchWord | None = None
    reservation: SbatchWord | None = None
    exclusive: bool = False
    requeue: bool = True
    array: Annotated[int, Field(ge=1)] | None = None
    allow_idle: bool = False
    setup: tuple[str, ...] = ()
    container: Line | None = None
    modules: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/+-]*$")], ...] = ()
    env: dict[Annotated[str, AfterValidator(env_name)], Line] = {}
    sbatch: dict[Annotated[str, AfterValidator(sbatch_key)], SbatchWord | int | bool] = {}
    srun_args: tuple[Line, ...] = ()
    gpu_flag: Literal["gpus-per-node", "gres"] = "gpus-per-node"
    on_rank_failure: Literal["end", "go_on"] = "end"
    restarts: Annotated[int, Field(ge=0)] = 0
    spares: Annotated[int, Field(ge=0)] = 0
    lost_after: Annotated[float, Field(gt=0)] = 15.0
    warn: WarnConfig | None = None

    @pydantic.model_validator(mode="after")
    def _one_way_to_ask(self) -> ClusterConfig:
        check_no_gpus(self.sbatch)
        check_memory(self.mem, self.sbatch)
        return self

    @pydantic.model_validator(mode="after")
    def _one_way_to_go_on(self) -> ClusterConfig:
        if self.restarts and self.on_rank_failure == "go_on":
            raise ValueError(
                "cluster.restarts starts all ranks again where one has failed, and cluster.on_rank_failure go_on lets "
                "the others go on: leave one out"
            )
        if self.spares and not self.restarts:
            raise ValueError(
                f"cluster.spares {self.spares} (--nodes {self.nodes}-{self.nodes + self.spares}) are nodes that take "
                "the place of bad ones at a restart: set cluster.restarts (--restarts) too"
            )
        return self

    @property
    def minutes(self) -> int:
        """The time limit in whole minutes, rounded up."""
        return slurm_minutes(self.time)


class Config(Section):
    """The whole config of a run."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    task: TaskConfig = TaskConfig()
    run: RunConfig = RunConfig()
    train: TrainConfig = TrainConfig()
    cluster: ClusterConfig = ClusterConfig()
    sweep: Annotated[
        dict[Annotated[str, Field(min_length=1)], tuple[str | int | float | bool | None, ...]] | str | None,
        BeforeValidator(sweep_points),
    ] = None

    @property
    def lost_after(self) -> float:
        """Seconds without a sign of life after which a rank of a program is lost: at least three heartbeats."""
        return max(self.cluster.lost_after, 3 * self.run.heartbeat)
