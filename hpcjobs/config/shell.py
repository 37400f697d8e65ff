"""SBATCH_* of the user's shell: sbatch's defaults for options, as a layer of the config."""

from __future__ import annotations

from collections.abc import Mapping

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


def shell_layer(env: Mapping[str, str]) -> tuple[Layer, list[str]]:
    """The layer of the SBATCH_* variables in `env`, and a note for each that is not taken.

    Empty in a job: there they are not the user's. Raises a ConfigError for other clusters.
    """
    if "SLURM_JOB_ID" in env:
        return Layer({}), []
    check_one_cluster(env)
    values: dict[str, object] = {}
    places: dict[str, str] = {}
    notes: list[str] = []
    for name, value in sorted(env.items()):
        option = _OPTIONS.get(name, name.removeprefix("SBATCH_").lower().replace("_", "-"))
        if not name.startswith("SBATCH_") or option not in LONG or (not value and option not in _SWITCHES):
            continue  # sbatch does not know it either
        if (key := _key(option)) and _is_plain(option, value):
            values[key], places[key] = _value(option, value), name
        else:
            owner = "cluster.gpus" if option == "gres" else OWN.get(option, "")
            use = f": set {owner}" if owner.startswith(("cluster.", "run.")) else ""
            notes.append(f"{name}={value} of the shell is not used{use}")
    return dotted_layer(values, places), notes


def _is_plain(option: str, value: str) -> bool:
    """Whether a key of hpcjobs' means the same: not GPUs by another option, nor nodes exclusive for one user's jobs."""
    if option == "exclusive":
        return value.lower() in ("", "1", "yes", "true", "exclusive")
    return not asks_for_gpus(option, value)


def _key(option: str) -> str | None:
    """The config key of an option; None if hpcjobs sets the option itself."""
    if option in _KEYS:
        return f"cluster.{option}"
    if option in _BOOLEAN:
        return f"cluster.{option.removeprefix('no-')}"
    return None if option in OWN else f"cluster.sbatch.{option}"


def _value(option: str, value: str) -> object:
    if option in _BOOLEAN:
        return option != "no-requeue"
    return True if option in _FLAGS and value.lower() in ("", "1", "yes", "true") else value


def check_one_cluster(env: Mapping[str, str]) -> None:
    """Raise a ConfigError where the shell sends Slurm's commands to other clusters than the one here."""
    for name in ("SBATCH_CLUSTERS", "SLURM_CLUSTERS"):
        if value := env.get(name):
            raise ConfigError(
                f"{name}={value} in this shell sends jobs to another cluster, and hpcjobs asks the one here about "
                f"them: log in there, or unset {name}"
            )
