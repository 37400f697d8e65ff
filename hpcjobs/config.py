"""The config: strict, layered, checked once at the door, frozen inside."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from hpcjobs.errors import ConfigError, UsageError, did_you_mean
from hpcjobs.layers import Layer, dump_yaml, file_layer, merge_layers
from hpcjobs.paths import checked_name

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SECRET = re.compile(r"token|secret|password|passwd|api_?key|credential", re.IGNORECASE)
_SBATCH_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What hpcjobs itself writes into its scripts: through `cluster.sbatch` they would contradict the plan.
_OWN_SBATCH = {
    "nodes": "cluster.nodes", "ntasks": "cluster.ntasks_per_node", "ntasks-per-node": "cluster.ntasks_per_node",
    "gpus": "cluster.gpus", "gpus-per-node": "cluster.gpus_per_node", "cpus-per-task": "cluster.cpus_per_task",
    "mem": "cluster.mem", "time": "cluster.time", "partition": "cluster.partition",
    "account": "cluster.account", "qos": "cluster.qos", "constraint": "cluster.constraint",
    "reservation": "cluster.reservation", "exclusive": "cluster.exclusive", "requeue": "cluster.requeue",
    "job-name": "run.name", "output": "nothing", "error": "nothing", "dependency": "nothing", "array": "nothing",
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
    engine: Literal["auto", "generate", "dummy"] = "auto"
    batch_size: Annotated[int, Field(ge=1)] = 16
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


class TaskConfig(Section):
    """What is asked of the model about each row, and how the answers are scored."""

    type: Literal["generate"] = "generate"
    messages: tuple[Message, ...] | None = None
    prompt: str | None = None
    target: str | None = None
    generation: GenerationConfig = GenerationConfig()
    metrics: tuple[str, ...] = ()


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
    rendezvous_timeout: Annotated[float, Field(gt=0)] = 600.0

    @pydantic.model_validator(mode="after")
    def _beats(self) -> RunConfig:
        if self.lease_timeout < 3 * self.heartbeat:
            raise ValueError(
                f"run.lease_timeout ({self.lease_timeout:g} s) must be at least 3 times run.heartbeat "
                f"({self.heartbeat:g} s): a healthy rank would lose its leases"
            )
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
    cluster: ClusterConfig = ClusterConfig()


def defaults_folder() -> Path:
    """The shipped `configs/`: inside an installed package, or beside it in a checkout."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


def user_config() -> Path:
    """The user's own layer, which need not exist."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "hpcjobs" / "config.yaml"


def profile_file(profile: str) -> Path:
    """The file of a site profile: in `configs/clusters/` here, or shipped; else a ConfigError."""
    checked_name(profile, "profile")
    folders = (Path("configs/clusters"), defaults_folder() / "clusters")
    for folder in folders:
        if (folder / f"{profile}.yaml").is_file():
            return folder / f"{profile}.yaml"
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    raise ConfigError(f"no profile {profile!r}{did_you_mean(profile, known)}; there are: {', '.join(known) or 'none'}")


def resolve(
    job: str, config: Path | None, profile: str | None, upper: Sequence[Layer]
) -> tuple[Config, dict[str, str]]:
    """The config of a job and where each value came from (dotted key -> place).

    Built-in defaults < profile < user's config < `config` (default: the shipped one of the job) < `upper`.
    """
    layers = [file_layer(profile_file(profile))] if profile else []
    if user_config().is_file():
        layers.append(file_layer(user_config()))
    default = defaults_folder() / f"{job}.yaml"
    if config is not None or default.is_file():
        layers.append(file_layer(config or default))
    merged = merge_layers([*layers, *upper])
    return validate(merged), merged.places


def validate(layer: Layer) -> Config:
    """A checked Config from merged layers; the first problems as a ConfigError with place and valid keys."""
    values = _tuples(layer.values)
    try:
        return Config.model_validate(values)
    except pydantic.ValidationError as error:
        # Unknown keys first: what is missing may be what was misspelt. One problem a key: pydantic tells one
        # for each type that a value might have had.
        problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
        said: dict[str, str] = {}
        for problem in problems:
            location = _location(problem["loc"], values)
            said.setdefault(".".join(location), _explain(problem, location, layer.places))
        raise ConfigError("\n".join(list(said.values())[:5])) from None


def _location(parts: Sequence[Any], values: Any) -> list[str]:
    """The config key that pydantic's location means: what it adds about types and keys is cut off."""
    location = []
    for part in parts:
        if not isinstance(values, Mapping | tuple) or (isinstance(values, tuple) and not isinstance(part, int)):
            break
        location.append(str(part))
        values = values.get(part) if isinstance(values, Mapping) else values[part]
    return location


def _tuples(value: Any) -> Any:
    """YAML's lists as the tuples that a frozen config holds."""
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def _explain(problem: Any, location: Sequence[str], places: Mapping[str, str]) -> str:
    key, message = ".".join(location), problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        valid = _valid_keys(location[:-1])
        hint = f"{did_you_mean(location[-1], valid)}; valid here: {', '.join(valid)}"
        return f"{_place(location, places)}: unknown key '{key}'{hint}"
    if isinstance(problem["input"], Mapping) and problem["type"] == "value_error":
        # About several keys of a section: the message names them, the first that somebody has set is the place.
        named = [word for word in re.findall(r"\w+\.\w+", message) if word in places]
        return f"{places[named[0]] if named else _place(location, places)}: {message}"
    shown = isinstance(problem["input"], str | int | float | None) and problem["loc"][-1] != "[key]"
    got = f" (got {problem['input']!r})" if shown and not key.startswith("cluster.env.") else ""  # may be a secret
    return f"{_place(location, places)}: {key}: {_WORDS.get(problem['type'], message)}{got}"[:2000]


def _place(location: Sequence[str], places: Mapping[str, str]) -> str:
    """Where a key stands, else the nearest section around it, else something in it."""
    around = [".".join(location[:length]) for length in range(len(location), 0, -1)]
    inside = [key for key in places if key.startswith(f"{around[0]}.")]
    return next((places[key] for key in [around[0], *inside, *around] if key in places), "config")


# pydantic speaks of Python's types where the user writes YAML.
_WORDS = {
    "model_type": "is a section: write its keys below it",
    "dict_type": "holds keys and values, such as {key: value}",
    "tuple_type": "is a list, such as [one, two]",
    "missing": "is missing",
}


def _valid_keys(section: Sequence[str]) -> list[str]:
    model: Any = Config
    for part in section:
        annotation = model.model_fields[part].annotation if part in getattr(model, "model_fields", {}) else model
        model = _section_of(annotation) or model
    return list(model.model_fields)


def _section_of(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in getattr(annotation, "__args__", ()) if (found := _section_of(arg))), None)


def dump(config: Config) -> str:
    """The config as YAML that `read_config` reads back to an equal one."""
    return dump_yaml(config.model_dump(mode="json"))


def read_config(path: Path) -> Config:
    """The config of a run folder."""
    return validate(file_layer(path))
