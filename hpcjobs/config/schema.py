"""The config: strict, layered, checked once at the door, frozen inside."""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal

import pydantic
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from hpcjobs.errors import UsageError
from hpcjobs.run_folder.paths import checked_name

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SECRET = re.compile(r"token(?!iz)|secret|password|passwd|api_?key|credential", re.IGNORECASE)
_SBATCH_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What hpcjobs itself writes into its scripts: through `cluster.sbatch` they would contradict the plan.
_OWN_SBATCH = {
    "nodes": "cluster.nodes", "ntasks": "cluster.ntasks_per_node", "ntasks-per-node": "cluster.ntasks_per_node",
    "gpus": "cluster.gpus", "gpus-per-node": "cluster.gpus_per_node", "cpus-per-task": "cluster.cpus_per_task",
    "mem": "cluster.mem", "time": "cluster.time", "partition": "cluster.partition",
    "account": "cluster.account", "qos": "cluster.qos", "constraint": "cluster.constraint",
    "reservation": "cluster.reservation", "exclusive": "cluster.exclusive", "requeue": "cluster.requeue",
    "job-name": "run.name", "output": "nothing", "error": "nothing", "dependency": "nothing", "array": "cluster.array",
    "open-mode": "nothing", "wrap": "nothing", "parsable": "nothing", "chdir": "nothing", "signal": "nothing",
    "no-kill": "nothing", "no-requeue": "cluster.requeue", "gpus-per-task": "cluster.gpus", "clusters": "nothing",
}  # fmt: skip


def one_line(value: str) -> str:
    """`value`, if it can stand on an #SBATCH line; a newline there would become a line of the script."""
    if _CONTROL.search(value):
        raise ValueError("has a control character (a newline would become a line of the script)")
    return value


def sbatch_word(value: str) -> str:
    """`value`, if sbatch reads it from an #SBATCH line as it is: it drops backslashes, in quotes too."""
    if "\\" in value:
        raise ValueError("has a backslash, which sbatch would drop from its #SBATCH line")
    return one_line(value)


def _name(value: str) -> str:
    try:
        return checked_name(value, "name")
    except UsageError as error:
        raise ValueError(str(error)) from None  # so that pydantic says where it stands


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is no regular expression of Python: {error}") from None
    return value


Line = Annotated[str, AfterValidator(one_line)]
SbatchWord = Annotated[str, AfterValidator(sbatch_word)]
Name = Annotated[str, AfterValidator(_name)]


class Section(BaseModel):
    """Strict and frozen: an unknown key or a wrong type is an error, never a guess."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


class ModelConfig(Section):
    """Which model, and how a rank runs it."""

    name: str = ""
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    engine: Literal["auto", "transformers", "loop", "generate", "dummy"] = "auto"
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    gpus_per_rank: Annotated[int, Field(ge=1)] = 1
    trust_remote_code: bool = False
    dummy_delay: Annotated[float, Field(ge=0)] = 0.0

    @pydantic.model_validator(mode="after")
    def _pinned(self) -> ModelConfig:
        if self.trust_remote_code and not self.revision:
            raise ValueError("model.trust_remote_code runs code from the hub: pin it with model.revision")
        return self


class DataConfig(Section):
    """Which rows."""

    name: str = ""
    config: str | None = None
    split: str | None = None
    max_samples: Annotated[int, Field(ge=0)] | None = None
    id_column: str | None = None


class GenerationConfig(Section):
    """How an answer is made; temperature 0 is greedy."""

    max_new_tokens: Annotated[int, Field(ge=1)] = 256
    temperature: Annotated[float, Field(ge=0)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()


class Message(Section):
    """One turn of a chat; `content` is a jinja2 template over the row."""

    role: Literal["system", "user", "assistant"]
    content: str


class FewShotConfig(Section):
    """Solved examples before each prompt. `data` null takes them from the data set itself, never the row's own.

    `first` takes the pool's first `k` rows, the same for every sample; `random` draws `k` for each sample, seeded
    by `seed` and its id. With `same`, only rows that have the sample's value in that column.
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
    """What is asked of the model about each row, and how the answers are scored.

    `description` stands before all examples and the prompt, in a chat as the system's turn. choice: `choices` is a
    template whose value is a list, or one template an option; `delimiter` stands between prompt and option, and
    between prompt and answer of an example (null: a space, in a chat nothing). lm_eval: `name` is a task of
    lm-evaluation-harness, `include_path` a folder of task YAMLs; `chat_template` has its prompts go through the
    model's own.
    """

    type: Literal["generate", "choice", "perplexity", "lm_eval"] = "generate"
    name: str | None = None
    include_path: str | None = None
    chat_template: bool = False
    description: str | None = None
    messages: tuple[Message, ...] | None = None
    prompt: str | None = None
    target: str | None = None
    choices: str | tuple[str, ...] | None = None
    delimiter: str | None = None
    few_shot: FewShotConfig = FewShotConfig()
    repeats: Annotated[int, Field(ge=1)] = 1
    generation: GenerationConfig = GenerationConfig()
    extract: Annotated[str, Field(min_length=1), AfterValidator(_pattern)] | None = None
    normalize: tuple[Literal["lower", "punctuation", "articles", "whitespace", "numbers"], ...] = ()
    metrics: tuple[str, ...] = ()
    group_by: tuple[str, ...] = ()


class RunConfig(Section):
    """How the run behaves: names, seeds, the ledger's times (seconds)."""

    name: Name | None = None
    root: str | None = None
    seed: int = 0
    deterministic: bool = False
    sharding: Literal["dynamic", "static"] = "dynamic"
    chunk_size: Annotated[int, Field(ge=1)] | None = None
    lease_timeout: Annotated[float, Field(gt=0)] = 120.0
    heartbeat: Annotated[float, Field(gt=0)] = 5.0
    progress_timeout: Annotated[float, Field(gt=0)] = 1800.0
    auto_resume: Annotated[int, Field(ge=0)] = 3
    drain_margin: Annotated[float, Field(ge=0)] | None = None
    rendezvous_timeout: Annotated[float, Field(gt=0)] = 600.0

    @pydantic.model_validator(mode="after")
    def _beats(self) -> RunConfig:
        if self.lease_timeout < 3 * self.heartbeat:
            raise ValueError(
                f"run.lease_timeout ({self.lease_timeout:g} s) must be at least 3 times run.heartbeat "
                f"({self.heartbeat:g} s): a healthy rank would lose its leases"
            )
        return self


class FsdpConfig(Section):
    """Fully sharded data parallel (FSDP2): weights, gradients and optimizer are spread over the ranks."""

    enabled: bool = False
    reshard_after_forward: bool = True
    cpu_offload: bool = False
    auto_wrap_policy: Literal["transformer_based_wrap", "size_based_wrap", "no_wrap"] = "transformer_based_wrap"
    transformer_cls_names_to_wrap: tuple[str, ...] = ()
    min_num_params: Annotated[int, Field(ge=1)] | None = None
    activation_checkpointing: bool = False


class LoraConfig(Section):
    """Low-rank adapters instead of all weights; `rank` null trains all. `target_modules` empty: every linear layer."""

    rank: Annotated[int, Field(ge=1)] | None = None
    alpha: Annotated[int, Field(ge=1)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: tuple[str, ...] = ()


class TrainConfig(Section):
    """Supervised fine-tuning. A step is one global batch; with `packing` it counts packed rows, else samples."""

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
    eval_every: Annotated[int, Field(ge=1)] | None = None
    then_eval: str | None = None
    then_eval_every: Annotated[int, Field(ge=1)] | None = None
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
        if self.then_eval_every and self.then_eval is None:
            raise ValueError("train.then_eval_every is for evals by train.then_eval, which is not set")
        if self.min_learning_rate and self.scheduler != "cosine_with_min_lr":
            raise ValueError("train.min_learning_rate is for train.scheduler cosine_with_min_lr")
        return self


def _sbatch_key(key: str) -> str:
    owner = _OWN_SBATCH.get(key.replace("_", "-"))
    if owner:
        hint = f"set {owner} instead" if owner != "nothing" else "hpcjobs sets it itself"
        raise ValueError(f"sbatch option {key!r} is not for cluster.sbatch: {hint}")
    if not _SBATCH_KEY.fullmatch(key):
        raise ValueError(f"sbatch option {key!r} is not a long option's name")
    return key


def _env_name(key: str) -> str:
    if not _ENV_NAME.fullmatch(key):
        raise ValueError(f"{key!r} is not the name of an environment variable")
    if _SECRET.search(key):
        raise ValueError(
            f"{key} looks like a secret, and scripts and config files are kept: export it in the shell "
            "that submits, sbatch hands the environment on"
        )
    return key


def _slurm_time(value: str | int) -> str | int:
    slurm_minutes(value)
    return value


class ClusterConfig(Section):
    """What is asked of Slurm, in Slurm's words; `sbatch` takes the rest."""

    executor: Literal["auto", "slurm", "local", "debug"] = "auto"
    nodes: Annotated[int, Field(ge=1)] = 1
    gpus: Annotated[int, Field(ge=0)] | None = None
    gpus_per_node: Annotated[int, Field(ge=0)] | None = None
    ntasks_per_node: Annotated[int, Field(ge=1)] | None = None
    cpus_per_task: Annotated[int, Field(ge=1)] | None = None
    mem: SbatchWord | None = None
    time: Annotated[Line | int, AfterValidator(_slurm_time)] = "1:00:00"
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
    env: dict[Annotated[str, AfterValidator(_env_name)], Line] = {}
    sbatch: dict[Annotated[str, AfterValidator(_sbatch_key)], SbatchWord | int | bool] = {}
    srun_args: tuple[Line, ...] = ()

    @property
    def minutes(self) -> int:
        """The time limit in whole minutes, rounded up."""
        return slurm_minutes(self.time)


def slurm_minutes(time: str | int) -> int:
    """Slurm's time formats (sbatch --time): M, M:S, H:M:S, D-H, D-H:M, D-H:M:S; in minutes, rounded up."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", str(time).strip(), re.ASCII)
    if not match:
        raise ValueError(f"time {time!r} is not Slurm's: minutes, M:S, H:M:S, D-H, D-H:M or D-H:M:S")
    days, *rest = match.groups()
    numbers = [int(number) for number in rest if number is not None]
    if days is not None:
        hours, minutes, seconds = [*numbers, 0, 0][:3]
    elif len(numbers) == 3:
        hours, minutes, seconds = numbers
    else:
        hours, (minutes, seconds) = 0, [*numbers, 0][:2]
    total = math.ceil((int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds) / 60)
    if total < 1:
        raise ValueError(f"time {time!r} is no time at all")
    return total


class Config(Section):
    """All that a run is made from."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    task: TaskConfig = TaskConfig()
    run: RunConfig = RunConfig()
    train: TrainConfig = TrainConfig()
    cluster: ClusterConfig = ClusterConfig()
