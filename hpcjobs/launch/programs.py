"""Run a Slurm command: in an environment that means what hpcjobs means, and with a deadline."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from hpcjobs.errors import LaunchError

TIMEOUT = 60.0
# Variables to keep; all others of an enclosing job would be read as options by sbatch (submitit#1782).
_KEEP = {"SLURM_CONF", "SLURM_CONF_SERVER"}
# The first are of an enclosing job or launcher. The others are options of Slurm's commands in the user's shell: they
# would filter or change what is parsed here (squeue(1), sacct(1), scancel(1), sinfo(1)). SBATCH_* are options, too:
# `config.shell` has made a layer of the config of them.
_LEAKS = (
    "SLURM_", "SRUN_", "SUBMITIT_", "PMI_", "PMIX_", "TORCHELASTIC_",
    "SBATCH_", "SALLOC_", "SQUEUE_", "SACCT_", "SCANCEL_", "SCONTROL_", "SINFO_",
)  # fmt: skip
_NAMES = {
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK",
    "HPCJOBS_ATTEMPT", "HPCJOBS_LAUNCH", "HPCJOBS_END_TIME", "HPCJOBS_KILL_WAIT", "HPCJOBS_UMASK",
    "HPCJOBS_RESTART", "HPCJOBS_INDEX", "HPCJOBS_ARRAY_SIZE", "HPCJOBS_MASTER_ADDR", "HPCJOBS_MASTER_PORT",
    "ENVIRONMENT", "HPCJOBS_PROGRAM",
}  # fmt: skip


def available() -> bool:
    """Whether Slurm's commands are on PATH."""
    return shutil.which("sbatch") is not None and shutil.which("squeue") is not None


def clean_environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """`env` (default: this process's) without variables of an enclosing job or launcher, and without options of Slurm's
    commands.
    """
    env = os.environ if env is None else env
    return {
        name: value for name, value in env.items() if name in _KEEP or not (name.startswith(_LEAKS) or name in _NAMES)
    }


def run(command: Sequence[str], seconds: float = TIMEOUT) -> subprocess.CompletedProcess[str]:
    """Run a Slurm command in `clean_environment`. Raises a LaunchError if it is missing or takes longer than this."""
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds,
            env=clean_environment(), check=False, errors="replace",
        )  # fmt: skip
    except FileNotFoundError:
        raise LaunchError(f"{command[0]} is not here: this machine has no Slurm") from None
    except subprocess.TimeoutExpired:
        raise LaunchError(f"{command[0]} did not answer within {round(seconds, 1):g} s") from None


def words(text: str) -> str:
    """What a command said, on one line."""
    return " ".join(text.split()) or "no reason given"
