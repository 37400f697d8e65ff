"""script: a Python program on every rank, in the environment that torch and accelerate expect."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from hpcjobs.distributed.rendezvous import Rendezvous, place_of
from hpcjobs.errors import HpcJobsError
from hpcjobs.masking import reveal
from hpcjobs.run_folder.files import user_umask
from hpcjobs.run_folder.rank_state import RankState
from hpcjobs.run_folder.snapshot import program_command

if TYPE_CHECKING:
    from hpcjobs.distributed.work import Work

log = logging.getLogger(__name__)


def run_script(work: Work) -> None:
    """Run the planned program, from its snapshot, as this rank. Raises an HpcJobsError if it exits with an error.

    Rank 0's process hosts torch's store on a socket it opened before publishing its address, so `init_process_group()`
    in the program works on any cluster.
    """
    rank, env = work.rank, dict(os.environ)
    listener = None
    if rank.world_size > 1 and not rank.master:
        rendezvous = Rendezvous.of(work.paths.rendezvous, rank, work.config.run.rendezvous_timeout)
        listener = rendezvous.publish() if rank.is_main else None
        master = place_of(listener) if listener else rendezvous.find()
        env |= {"TORCHELASTIC_USE_AGENT_STORE": "True"} | _interface(master[0], rank.world_size, rank.local_world_size)
        # hpcjobs is the nearest launcher: Rank.from_env in the program must not read Slurm's variables again.
        env |= {"TORCHELASTIC_RUN_ID": rank.attempt} | rank.exports(master, use_cpu=not work.plan.shape.gpus_per_node)
    elif rank.world_size > 1:
        env |= rank.exports(rank.master, use_cpu=not work.plan.shape.gpus_per_node)
    words, folders = program_command(work.paths, work.plan.code, work.plan.argv)
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [*folders, env.get("PYTHONPATH", "")]))
    command = [sys.executable, *words]
    log.info("command: %s", " ".join(command))
    work.heartbeat.enter(RankState.WORKING)
    command = _revealed(command, work.plan.run)
    with subprocess.Popen(command, env=env, cwd=work.plan.code.cwd, umask=user_umask()) as child:
        try:
            if listener is not None:
                _host(listener, rank.world_size, work.config.run.rendezvous_timeout)
            code = child.wait()
        except BaseException:
            _end(child)
            raise
    if code:
        name = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        raise HpcJobsError(f"{' '.join(work.plan.argv)} ended with {name} on rank {rank.rank} ({rank.host})")


def _revealed(command: list[str], run: str) -> list[str]:
    """The command with the secrets that its plan does not have."""
    try:
        return reveal(command, os.environ)
    except KeyError as absent:
        name = absent.args[0]
        raise HpcJobsError(
            f"the command needs a secret that is not in this job's environment: {name}; next: export {name}=... in the "
            f"shell, then hpcjobs resume {run}"
        ) from None


def _host(listener: object, world_size: int, timeout: float) -> None:
    """Serve torch's store, if torch is installed."""
    try:
        from hpcjobs.distributed.group import host_store

        host_store(listener, world_size, timeout)  # type: ignore[arg-type]
    except ImportError:
        log.info("torch is not installed: no store for the program")


def _interface(master: str, world_size: int, local_world_size: int) -> dict[str, str]:
    from hpcjobs.distributed.rendezvous import interface_towards

    name = interface_towards(master)
    if name is None or (name == "lo" and world_size != local_world_size and master != "127.0.0.1"):
        return {}
    return {} if "GLOO_SOCKET_IFNAME" in os.environ else {"GLOO_SOCKET_IFNAME": name}


def _end(child: subprocess.Popen[bytes]) -> None:
    """Terminate the program, and kill it if it does not end."""
    child.terminate()
    try:
        child.wait(timeout=20)
    except subprocess.TimeoutExpired:
        child.kill()
