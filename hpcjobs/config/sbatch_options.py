"""Which options of sbatch a user may set through `cluster.sbatch`, and which key to set instead of the others."""

from __future__ import annotations

import re
from collections.abc import Mapping

# Options that hpcjobs sets itself, or that change the shape of a job behind the plan's back.
OWN = {
    "nodes": "cluster.nodes", "ntasks": "cluster.ntasks_per_node", "ntasks-per-node": "cluster.ntasks_per_node",
    "ntasks-per-core": "cluster.ntasks_per_node", "ntasks-per-socket": "cluster.ntasks_per_node",
    "ntasks-per-gpu": "cluster.ntasks_per_node",
    "gpus": "cluster.gpus", "gpus-per-node": "cluster.gpus_per_node", "gpus-per-task": "cluster.gpus",
    "gpus-per-socket": "cluster.gpus_per_node",
    "tres-per-task": "cluster.cpus_per_task or cluster.gpus",
    "cpus-per-task": "cluster.cpus_per_task", "cpus-per-gpu": "cluster.cpus_per_task",
    "mem": "cluster.mem", "time": "cluster.time", "partition": "cluster.partition",
    "account": "cluster.account", "qos": "cluster.qos", "constraint": "cluster.constraint",
    "reservation": "cluster.reservation", "exclusive": "cluster.exclusive", "requeue": "cluster.requeue",
    "no-requeue": "cluster.requeue", "job-name": "run.name", "array": "cluster.array", "wait": "--wait of hpcjobs",
    "test-only": "--dry-run", "output": "nothing", "error": "nothing", "input": "nothing", "dependency": "nothing",
    "open-mode": "nothing", "wrap": "nothing", "parsable": "nothing", "chdir": "nothing", "signal": "nothing",
    "no-kill": "nothing", "clusters": "nothing", "cluster": "nothing", "cluster-constraint": "nothing",
    "batch": "nothing", "uid": "nothing", "gid": "nothing", "quiet": "nothing", "verbose": "nothing",
    "help": "nothing", "usage": "nothing", "version": "nothing",
}  # fmt: skip
# The others of sbatch(1), Slurm 20.11 to 25.05. A site may have more, from SPANK plugins.
_MORE = {
    "acctg-freq", "admin-comment", "bb", "bbf", "begin", "comment", "container", "container-id", "contiguous",
    "core-spec", "cores-per-socket", "cpu-freq", "deadline", "delay-boot", "distribution", "exclude", "export",
    "export-file", "extra", "extra-node-info", "get-user-env", "gpu-bind", "gpu-freq", "gres", "gres-flags", "hint",
    "hold", "ignore-pbs", "kill-on-invalid-dep", "licenses", "mail-type", "mail-user", "mcs-label", "mem-bind",
    "mem-per-cpu", "mem-per-gpu", "mincpus", "network", "nice", "nodefile", "nodelist", "oom-kill-step", "overcommit",
    "oversubscribe", "power", "prefer", "priority", "profile", "propagate", "reboot", "resv-ports", "segment",
    "sockets-per-node", "spread-job", "stepmgr", "switches", "thread-spec", "threads-per-core", "time-min", "tmp",
    "tres-bind", "umask", "use-min-nodes", "wait-all-nodes", "wckey", "x11",
}  # fmt: skip
LONG = OWN.keys() | _MORE
# Short forms (sbatch(1)); `-s` and others with a value too.
SHORT = {
    "a": "array", "A": "account", "b": "begin", "B": "extra-node-info", "c": "cpus-per-task", "C": "constraint",
    "d": "dependency", "D": "chdir", "e": "error", "F": "nodefile", "G": "gpus", "h": "help", "H": "hold",
    "i": "input", "J": "job-name", "k": "no-kill", "L": "licenses", "m": "distribution", "M": "clusters",
    "n": "ntasks", "N": "nodes", "o": "output", "O": "overcommit", "p": "partition", "q": "qos", "Q": "quiet",
    "s": "oversubscribe", "S": "core-spec", "t": "time", "V": "version", "v": "verbose", "w": "nodelist",
    "W": "wait", "x": "exclude",
}  # fmt: skip
_GPUS = re.compile(r"\b(gpus?|mps|shard)\b")
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def sbatch_key(key: str) -> str:
    """The long option that `key` is, a unique beginning of it or its letter, if it may be set through `cluster.sbatch`.

    Raises a ValueError that names the config key to use. Names that sbatch(1) does not have may be a plugin's.
    """
    if not _KEY.fullmatch(key):
        raise ValueError(f"sbatch option {key!r} is not a long option's name")
    name = _long(key.replace("_", "-"))
    if owner := OWN.get(name):
        said = f"sbatch option {key!r}" + (f" ({name})" if name != key.replace("_", "-") else "")
        if name in ("clusters", "cluster", "cluster-constraint"):
            hint = "hpcjobs runs on one cluster: log in on the other one, and submit there"
        elif owner == "nothing":
            hint = "hpcjobs sets it itself, or does not work with it"
        else:
            hint = f"{'use' if owner.startswith('-') else 'set'} {owner} instead"
        raise ValueError(f"{said} is not for cluster.sbatch: {hint}")
    return name


def _long(word: str) -> str:
    """As sbatch's getopt_long(3) completes it: what has one meaning only."""
    if len(word) == 1:
        if word not in SHORT:
            raise ValueError(f"sbatch has no option -{word}")
        return SHORT[word]
    found = [name for name in LONG if name.startswith(word)]
    return word if word in LONG or len(found) != 1 else found[0]


def asks_for_gpus(gres: object) -> bool:
    """Whether a value of sbatch's option gres asks for GPUs, or for parts of them."""
    return _GPUS.search(str(gres)) is not None


def check_no_gpus(options: Mapping[str, object]) -> None:
    """Raise a ValueError if the option gres asks for GPUs, of which the plan would not know."""
    if asks_for_gpus(options.get("gres", "")):
        raise ValueError(
            "cluster.sbatch.gres asks for GPUs: set cluster.gpus or cluster.gpus_per_node instead, and "
            "cluster.gpu_flag: gres where the site wants --gres"
        )


def check_memory(mem: str | None, options: Mapping[str, object]) -> None:
    """Raise a ValueError for two of sbatch's three ways to ask for memory, which exclude each other."""
    given = (["cluster.mem"] if mem else []) + [
        f"cluster.sbatch.{key}" for key in ("mem-per-cpu", "mem-per-gpu") if options.get(key)
    ]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)}: sbatch takes one of them")
