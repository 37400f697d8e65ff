"""SBATCH_* of the user's shell: sbatch's defaults for options, as a layer of the config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hpcjobs.config.layers import Layer, dotted_layer
from hpcjobs.config.sbatch_options import LONG, OWN, asks_for_gpus
from hpcjobs.errors import ConfigError

# Variable -> option (sbatch(1), INPUT ENVIRONMENT VARIABLES), where the name does not say it.
_OPTIONS = {
    "SBATCH_ARRAY_INX": "array", "SBATCH_MEM_PER_NODE": "mem", "SBATCH_NO_KILL": "no-kill", "SBATCH_TIMELIMIT": "time",
    "SBATCH_WAIT_ALL_NODES": "wait-all-nodes", "SBATCH_BURST_BUFFER": "bb", "SBATCH_REQ_SWITCH": "switches",
    "SBATCH_COMMENT": "comment", "SBATCH_CONTAINER_ID": "container-id",
    "SBATCH_CPU_FREQ_REQ": "cpu-freq", "SBATCH_KILL_INVALID_DEP": "kill-on-invalid-dep",
}  # fmt: skip
# Options of clusters that are keys of `cluster`, and give no other shape.
_KEYS = {"account", "constraint", "mem", "partition", "qos", "reservation", "time"}
_BOOLEAN = {"exclusive", "requeue", "no-requeue"}
_FLAGS = {"contiguous", "get-user-env", "ignore-pbs", "overcommit", "reboot", "spread-job", "use-min-nodes"}
_SWITCHES = _FLAGS | _BOOLEAN


def shell_layer(env: Mapping[str, str]) -> Layer:
    """The layer of the SBATCH_* variables in `env`.

    Empty in a job: there they are not the user's. Raises a ConfigError for other clusters.
    """
    if "SLURM_JOB_ID" not in env:
        _check_one_cluster(env)
    values, places = dict[str, object](), dict[str, str]()
    for name, option, value in _set_options(env):
        if _is_taken(option, value):
            key = _key(option)
            values[key], places[key] = _value(option, value), name
    return dotted_layer(values, places)


def shell_notes(env: Mapping[str, str]) -> list[str]:
    """A note for each SBATCH_* variable in `env` that `shell_layer` leaves out."""
    notes: list[str] = []
    for name, option, value in _set_options(env):
        if not _is_taken(option, value):
            owner = "cluster.gpus" if option == "gres" else OWN[option]
            use = f": set {owner}" if owner.startswith(("cluster.", "run.")) else ""
            notes.append(f"{name}={value} of the shell is not used{use}")
    return notes


def _set_options(env: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """(variable, option, value) of what sbatch would take from the shell; nothing in a job."""
    for name, value in sorted(env.items()) if "SLURM_JOB_ID" not in env else ():
        option = _OPTIONS.get(name, name.removeprefix("SBATCH_").lower().replace("_", "-"))
        if name.startswith("SBATCH_") and option in LONG and (value or option in _SWITCHES):
            yield name, option, value


def _is_taken(option: str, value: str) -> bool:
    """Whether a key means the same: not what hpcjobs sets, GPUs by gres, or nodes exclusive for one user's jobs."""
    if option == "exclusive":
        return value.lower() in ("", "1", "yes", "true", "exclusive")
    if option == "gres":
        return not asks_for_gpus(value)
    return option in _KEYS | _BOOLEAN or option not in OWN


def _key(option: str) -> str:
    """The config key of an option that is taken."""
    if option in _KEYS | _BOOLEAN:
        return f"cluster.{option.removeprefix('no-')}"
    return f"cluster.sbatch.{option}"


def _value(option: str, value: str) -> object:
    if option in _BOOLEAN:
        return option != "no-requeue"
    return True if option in _FLAGS and value.lower() in ("", "1", "yes", "true") else value


def _check_one_cluster(env: Mapping[str, str]) -> None:
    """Raise a ConfigError where the shell sends Slurm's commands to other clusters than the one here."""
    for name in ("SBATCH_CLUSTERS", "SLURM_CLUSTERS"):
        if value := env.get(name):
            raise ConfigError(
                f"{name}={value} in this shell sends jobs to another cluster, and hpcjobs asks the one here about "
                f"them: log in there, or unset {name}"
            )
