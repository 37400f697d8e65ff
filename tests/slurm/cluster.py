"""Cluster: a real Slurm of several nodes on this one machine, free of everything outside its own folder.

munged, mariadbd, slurmdbd, slurmctld and one slurmd a node, all of them children of this process with their
own sockets, free ports and a cluster name of their own, so that many clusters stand side by side. By hand:

    python -m tests.slurm.cluster up /tmp/slurm --nodes 2 --gpus 4     # prints the export line
    python -m tests.slurm.cluster down /tmp/slurm

What belongs to a cluster is found by pid and start time (the file `pids`) and by SLURM_CONF, never by a bare
program name. All waits have deadlines, and an error shows the log of the daemon that did not come up.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import os
import pwd
import random
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

CLIENT_PROGRAMS = ("sacct", "sacctmgr", "sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun")
PROGRAMS = {
    "munged": "munge",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
    "slurmdbd": "slurmdbd",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    **dict.fromkeys(CLIENT_PROGRAMS, "slurm-client"),
}
SUBFOLDERS = ("etc", "state", "spool", "log", "run", "db")
PREFIX = "hpcslurm-"
START_ATTEMPTS = 5
DEADLINE = 60.0
POLL = 0.05
SOCKET_PATH_MAX = 107
PORT_TAKEN = "Address already in use"
OUTSIDE = re.compile(r"(SLURMD?|SBATCH|SALLOC|SRUN|SCANCEL|SCONTROL|SINFO|SQUEUE|SACCT|SACCTMGR|PMIX?)_")
CLIENTS = ("srun", "sbatch", "salloc")
SACCT_FIELDS = "JobID,JobName,Partition,State,ExitCode,NNodes,NodeList,AllocTRES,Submit,Start,End,ElapsedRaw"

SLURM_CONF = """\
ClusterName={name}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[slurmctld]}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/run/munge.socket,cred_expire=5
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
GresTypes=gpu
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=5
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={ports[slurmdbd]}
AccountingStoragePass={folder}/run/munge.socket
AccountingStorageTRES=gres/gpu
MinJobAge=300
InactiveLimit=0
KillWait=5
SlurmdTimeout=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 OverSubscribe=NO
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=off
PartitionName=gpu Nodes=ALL MaxTime=2:00:00 State=UP PriorityTier=1
PartitionName=small Nodes=node1 MaxTime=10 State=UP PriorityTier=1
"""
NODE_CONF = """\
NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory=256000 {gres}
"""
SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.socket
DbdHost=localhost
DbdPort={ports[slurmdbd]}
SlurmUser={user}
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
LogFile={folder}/log/slurmdbd.log
PidFile={folder}/run/slurmdbd.pid
"""


class ClusterError(RuntimeError):
    """Something of the cluster did not do what it should; the message has the log."""


@dataclass(frozen=True)
class Process:
    """A process, told by its start time (clock ticks since boot) from a later one with the same pid."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The live process with this pid; None where there is none, or only a zombie of it."""
        fields = _stat(pid)
        return None if fields is None or fields[0] in "ZX" else cls(pid, int(fields[19]))

    @property
    def alive(self) -> bool:
        return Process.of(self.pid) == self

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self.alive:
                os.kill(self.pid, signal.SIGKILL)


class Cluster:
    """A Slurm cluster in `folder`: node1, node2, ... with `gpus` fake GPUs and `cpus` CPUs each."""

    def __init__(
        self, folder: Path, nodes: int = 2, gpus: int = 4, cpus: int = 8, settings: Mapping[str, str] | None = None
    ) -> None:
        """`settings` are more lines of slurm.conf."""
        self.folder, self._settings = folder.absolute(), settings or {}
        self.nodes = [f"node{n}" for n in range(1, nodes + 1)]
        self.gpus = gpus
        self.cpus = cpus
        self.name = f"test{secrets.token_hex(4)}"
        self.ports: dict[str, int] = {}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    # Up and down

    def start(self) -> None:
        """Start all and wait until every node is idle. Raises ClusterError, with nothing left running."""
        self._check_folder()
        self.reap(self.folder)
        for attempt in range(1, START_ATTEMPTS + 1):
            atexit.register(self.stop)
            try:
                self._start_daemons()
                return
            except BaseException:
                self.stop()
                if attempt == START_ATTEMPTS or not self._port_was_taken():
                    raise

    def stop(self) -> None:
        """Kill everything of this cluster, what its jobs started included. A second call does nothing."""
        atexit.unregister(self.stop)
        self.reap(self.folder)
        for daemon in self._daemons.values():
            daemon.kill()
            daemon.wait()
        self._daemons.clear()

    @staticmethod
    def reap(folder: Path) -> None:
        """Kill what a cluster in `folder` left behind, whoever started it."""
        if not (folder / "pids").exists():
            return
        recorded = [process for name, process in _recorded(folder) if name != "owner"]
        _kill_until_none(lambda: [p for p in recorded if p.alive] + _members(folder))
        (folder / "pids").unlink(missing_ok=True)

    def disown(self) -> None:
        """Let the cluster outlive this process."""
        atexit.unregister(self.stop)
        self._record("owner", 1)

    def recover(self) -> None:
        """Bring back daemons and nodes that are down, cancel all jobs and wait until all is idle."""
        if not self._runs("slurmdbd"):
            self.start_dbd()
        if not self._runs("slurmctld"):
            self.start_ctld()
        self.run("scancel", f"--user={_user()}", check=False)
        for node in self.nodes:
            if not self._runs(node):
                self.start_node(node)
        for node, state in self.node_states().items():
            if state.startswith(("down", "drain", "fail")):
                self.run("scontrol", "update", f"nodename={node}", "state=resume", check=False)
        self.wait_idle()

    # Talking to it

    @property
    def env(self) -> dict[str, str]:
        """The environment for commands: this process's own, with no Slurm in it but this cluster."""
        outside = {key: value for key, value in os.environ.items() if not OUTSIDE.match(key)}
        return outside | {"SLURM_CONF": str(self.folder / "etc" / "slurm.conf")}

    def run(
        self, *argv: str, check: bool = True, cwd: Path | None = None, timeout: float = DEADLINE
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in `env`. Raises ClusterError with its output when it fails, unless check is off."""
        done = _output(*argv, env=self.env, cwd=cwd, timeout=timeout)
        if check and done.returncode:
            raise ClusterError(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def node_states(self) -> dict[str, str]:
        """Each node's state as sinfo has it: idle, mixed, allocated, down* (* does not answer), ..."""
        shown = self.run("sinfo", "--noheader", "--Node", "--partition=debug", "--format=%N %T").stdout
        return dict(line.split() for line in shown.splitlines())

    def job_state(self, job_id: str | int) -> str:
        """The job's state as slurmctld has it: PENDING, RUNNING, COMPLETED, ..."""
        shown = self.run("scontrol", "--oneliner", "show", "job", str(job_id)).stdout
        found = re.search(r"\bJobState=(\S+)", shown)
        if found is None:
            raise ClusterError(f"scontrol shows no state of job {job_id}: {shown!r}")
        return found[1]

    def sacct(self, job_id: str | int) -> list[dict[str, str]]:
        """The job and its steps as accounting has them, one dict a line; it may run a second or more late."""
        argv = ("sacct", "--parsable2", f"--jobs={job_id}", f"--format={SACCT_FIELDS}")
        header, *rows = self.run(*argv).stdout.splitlines()
        return [dict(zip(header.split("|"), row.split("|"), strict=True)) for row in rows]

    def wait_job(self, job_id: str | int, *states: str, timeout: float = DEADLINE) -> str:
        """Wait until the job is in one of `states` and give that state."""
        seen = ""

        def reached() -> bool:
            nonlocal seen
            seen = self.job_state(job_id)
            return seen in states

        self._wait(f"job {job_id} {'/'.join(states)}", reached, "slurmctld", timeout)
        return seen

    def wait_idle(self, timeout: float = DEADLINE) -> None:
        """Wait until the queue is empty and every node is idle."""
        self._wait("the nodes idle and the queue empty", self._idle, "slurmctld", timeout)

    def processes(self, node: str = "") -> list[Process]:
        """The live processes of this cluster, or of one of its nodes: daemons, steps and ranks."""
        return _members(self.folder, node)

    # Breaking it

    def kill_node(self, node: str) -> None:
        """What a power cut does: slurmd, then the node's slurmstepds and ranks, all by SIGKILL."""
        self._check_node(node)
        _kill_until_none(lambda: _members(self.folder, node))
        if node in self._daemons:
            self._daemons.pop(node).wait()

    def start_node(self, node: str) -> None:
        """Start the node's slurmd and wait until slurmctld has it back."""
        self._check_node(node)
        self._spawn(node, "slurmd", "-D", "-N", node)
        self._wait_port(node)
        self._wait(f"{node} back", lambda: not re.search(r"^down|^unk|\*", self.node_states()[node]), node)

    def stop_ctld(self) -> None:
        self._terminate("slurmctld")

    def start_ctld(self) -> None:
        self._spawn("slurmctld", "slurmctld", "-D")
        self._wait_port("slurmctld")
        ping = ("scontrol", "ping")
        self._wait("slurmctld", lambda: " is UP" in self.run(*ping, check=False).stdout, "slurmctld")

    def pause_ctld(self) -> None:
        """SIGSTOP: slurmctld takes connections, and answers none."""
        self._daemons["slurmctld"].send_signal(signal.SIGSTOP)

    def continue_ctld(self) -> None:
        self._daemons["slurmctld"].send_signal(signal.SIGCONT)

    def stop_dbd(self) -> None:
        self._terminate("slurmdbd")

    def start_dbd(self) -> None:
        self._spawn("slurmdbd", "slurmdbd", "-D")
        self._wait_port("slurmdbd")

    # Starting

    def _check_folder(self) -> None:
        longest = f"{self.folder}/spool/{self.nodes[-1]}/{self.nodes[-1]}_{2**32 - 1}.{2**32 - 1}"
        if len(longest) > SOCKET_PATH_MAX:
            raise ClusterError(
                f"{self.folder}: a socket's path may have {SOCKET_PATH_MAX} characters and {longest} has"
                f" {len(longest)}; take a folder right under /tmp"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        others = {path.name for path in self.folder.iterdir()} - {*SUBFOLDERS, "pids"}
        if others:
            held = ", ".join(sorted(others))
            raise ClusterError(f"{self.folder} holds {held}; a cluster takes an empty folder")

    def _check_node(self, node: str) -> None:
        if node not in self.nodes:
            raise ClusterError(f"no node {node!r} here; there are {', '.join(self.nodes)}")

    def _start_daemons(self) -> None:
        self._write_folder()
        self._record("owner", os.getpid())
        self._start_munge()
        self._start_database()
        self.start_dbd()
        self._wait("slurmdbd to take the cluster", self._add_cluster, "slurmdbd")
        self.start_ctld()
        for node in self.nodes:
            self._spawn(node, "slurmd", "-D", "-N", node)
        for node in self.nodes:
            self._wait_port(node)
        self.wait_idle()

    def _write_folder(self) -> None:
        for name in SUBFOLDERS:
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir()
        for node in self.nodes:
            (self.folder / "spool" / node).mkdir()
        for path in (self.folder, *self.folder.glob("**/")):
            path.chmod(0o755)
        (self.folder / "db").chmod(0o700)
        daemons = ("slurmctld", "slurmdbd", *self.nodes)
        self.ports = dict(zip(daemons, _free_ports(len(daemons)), strict=True))
        self._write("etc/munge.key", os.urandom(128), 0o400)
        self._write("etc/slurm.conf", self._slurm_conf().encode(), 0o644)
        self._write("etc/slurmdbd.conf", self._fill(SLURMDBD_CONF).encode(), 0o600)
        self._write("etc/gres.conf", self._gres_conf().encode(), 0o644)
        for gpu in range(self.gpus):  # Slurm wants a device, no plain file; a link to one needs no root
            (self.folder / "run" / f"gpu{gpu}").symlink_to("/dev/null")

    def _write(self, name: str, content: bytes, mode: int) -> None:
        path = self.folder / name
        path.touch(0o600)
        path.write_bytes(content)
        path.chmod(mode)

    def _fill(self, template: str) -> str:
        host = socket.gethostname().split(".")[0]
        return template.format(folder=self.folder, host=host, name=self.name, ports=self.ports, user=_user())

    def _slurm_conf(self) -> str:
        host = socket.gethostname().split(".")[0]
        gres = f"Gres=gpu:{self.gpus}" if self.gpus else ""
        nodes = [
            NODE_CONF.format(node=node, host=host, port=self.ports[node], cpus=self.cpus, gres=gres)
            for node in self.nodes
        ]
        more = [f"{name}={value}\n" for name, value in self._settings.items()]
        return self._fill(SLURM_CONF).replace("PartitionName=", "".join([*more, *nodes]) + "PartitionName=", 1)

    def _gres_conf(self) -> str:
        lines = [
            f"NodeName={node} Name=gpu File={self.folder}/run/gpu{gpu}\n"
            for node in self.nodes
            for gpu in range(self.gpus)
        ]
        return "AutoDetect=off\n" + "".join(lines)

    def _start_munge(self) -> None:
        etc, run = self.folder / "etc", self.folder / "run"
        files = [f"--key-file={etc}/munge.key", f"--socket={run}/munge.socket"]
        files += [f"--pid-file={run}/munged.pid", f"--seed-file={run}/munge.seed"]
        # 10 threads are what Slurm asks for; --force takes root and folders that others can write to
        self._spawn("munged", "munged", "--foreground", "--force", "--num-threads=10", *files)

    def _start_database(self) -> None:
        """mariadbd on a socket in a folder that nobody else enters, so root may have no password there."""
        data = self.folder / "db"
        common = [f"--user={_user()}", f"--datadir={data}"]
        # a mariadbd that starts takes away the temporary tables in its TMPDIR, those of another one too
        own = {"TMPDIR": str(self.folder / "run")}
        install = [
            _program("mariadb-install-db"),
            "--no-defaults",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ]
        made = _output(*install, *common, env=self.env | own, cwd=data, timeout=DEADLINE)
        if made.returncode:
            raise ClusterError(f"mariadb-install-db: exit code {made.returncode}\n{made.stdout}{made.stderr}")
        quick = ["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=64M"]
        where = ["--skip-networking", f"--socket={self._database_socket}", f"--pid-file={data}/pid"]
        where += [f"--tmpdir={own['TMPDIR']}"]
        self._spawn("mariadbd", "mariadbd", "--no-defaults", *common, *where, *quick)
        self._wait("munged", lambda: _connects(self.folder / "run" / "munge.socket"), "munged")
        self._wait("mariadbd", lambda: _connects(self._database_socket), "mariadbd")

    @property
    def _database_socket(self) -> Path:
        return self.folder / "db" / "socket"

    def _add_cluster(self) -> bool:
        return self.run("sacctmgr", "--immediate", "add", "cluster", self.name, check=False).returncode == 0

    # Daemons

    def _spawn(self, name: str, program: str, *argv: str) -> None:
        if self._runs(name):
            raise ClusterError(f"{name} runs already, as process {self._daemons[name].pid}")
        with (self.folder / "log" / f"{name}.out").open("ab") as out:
            daemon = subprocess.Popen(
                [_program(program), *argv],
                env=self.env | {"MYSQL_UNIX_PORT": str(self._database_socket)},
                cwd=self.folder / "log",
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._daemons[name] = daemon
        self._record(name, daemon.pid)

    def _record(self, name: str, pid: int) -> None:
        process = Process.of(pid)
        if process is not None:
            with (self.folder / "pids").open("a") as file:
                file.write(f"{name} {process.pid} {process.started}\n")

    def _runs(self, name: str) -> bool:
        return name in self._daemons and self._daemons[name].poll() is None

    def _terminate(self, name: str) -> None:
        """SIGTERM, so that the daemon saves its state; SIGKILL where that takes too long."""
        daemon = self._daemons.pop(name)
        daemon.terminate()
        try:
            daemon.wait(DEADLINE / 2)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    # Waiting

    def _idle(self) -> bool:
        if self.run("squeue", "--noheader").stdout.strip():
            return False
        return all(state == "idle" for state in self.node_states().values())

    def _wait(self, what: str, ready: Callable[[], bool], daemon: str, timeout: float = DEADLINE) -> None:
        deadline = time.monotonic() + timeout
        while not ready():
            if not self._runs(daemon):
                raise ClusterError(f"{what}: {daemon} ended\n{self._tail(daemon)}")
            if time.monotonic() > deadline:
                late = f"{what}: not within {timeout:g} s"
                raise ClusterError(f"{late}\n{self._status()}\n{self._tail(daemon)}")
            time.sleep(POLL)

    def _wait_port(self, name: str) -> None:
        pid, port = self._daemons[name].pid, self.ports[name]
        self._wait(f"{name} on port {port}", lambda: _listens(pid, port), name)

    def _status(self) -> str:
        nodes = self.run("sinfo", "--Node", "--long", check=False)
        jobs = self.run("squeue", "--long", check=False)
        return nodes.stdout + nodes.stderr + jobs.stdout + jobs.stderr

    def _tail(self, daemon: str, lines: int = 15) -> str:
        parts = []
        for path in sorted((self.folder / "log").glob(f"{daemon}.*")):
            last = path.read_text(errors="replace").splitlines()[-lines:]
            parts.append("\n".join([f"--- {path}", *last]))
        return "\n".join(parts)

    def _port_was_taken(self) -> bool:
        return any(PORT_TAKEN in path.read_text(errors="replace") for path in (self.folder / "log").glob("*"))


def missing_programs() -> list[str]:
    """What is not installed of what a cluster needs, with the Debian package that has it."""
    return [f"{program} ({package})" for program, package in PROGRAMS.items() if not _which(program)]


@contextlib.contextmanager
def temporary_cluster(
    nodes: int = 2, gpus: int = 4, cpus: int = 8, settings: Mapping[str, str] | None = None
) -> Iterator[Cluster]:
    """A started cluster in a new folder under /tmp (for short socket paths), stopped and removed after."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))
    cluster = Cluster(folder, nodes, gpus, cpus, settings)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def reap_abandoned() -> list[Path]:
    """Remove this user's temporary clusters whose process died without a stop; gives their folders."""
    reaped = []
    for pids in Path("/tmp").glob(f"{PREFIX}*/pids"):
        folder = pids.parent
        with contextlib.suppress(FileNotFoundError):  # another run was quicker
            if folder.stat().st_uid != os.geteuid():
                continue
            owners = [process for name, process in _recorded(folder) if name == "owner"]
            if owners and not owners[-1].alive:
                Cluster.reap(folder)
                shutil.rmtree(folder, ignore_errors=True)
                reaped.append(folder)
    return reaped


def _user() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


def _which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _program(program: str) -> str:
    path = _which(program)
    if path is None:
        raise ClusterError(f"{program} is not installed; tools/install_slurm.sh installs it")
    return path


def _output(*argv: str, env: dict[str, str], cwd: Path | None, timeout: float) -> subprocess.CompletedProcess[str]:
    pipe = subprocess.PIPE
    return subprocess.run(
        argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, timeout=timeout
    )


def _free_ports(count: int) -> list[int]:
    """Free ports below those the kernel gives to clients, so that none takes one while a daemon is down."""
    lowest_of_clients = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: list[int] = []
    for port in random.SystemRandom().sample(range(10000, max(lowest_of_clients, 20000)), 1000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            found.append(port)
        if len(found) == count:
            return found
    raise ClusterError(f"no {count} free ports below {lowest_of_clients}")


def _listens(pid: int, port: int) -> bool:
    """Whether this very process listens there; a connection to try it would end up in its log as an error."""
    tables = [path for path in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")) if path.exists()]
    rows = [line.split() for path in tables for line in path.read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"}
    return any(target in sockets for _, target in _open_files(pid))


def _connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _recorded(folder: Path) -> list[tuple[str, Process]]:
    rows = [line.split() for line in (folder / "pids").read_text().splitlines()]
    return [(name, Process(int(pid), int(started))) for name, pid, started in rows]


def _kill_until_none(find: Callable[[], list[Process]]) -> None:
    deadline = time.monotonic() + DEADLINE
    while found := find():
        for process in found:
            process.kill()
        if time.monotonic() > deadline:
            raise ClusterError(f"still alive after SIGKILL: {', '.join(str(p.pid) for p in found)}")
        time.sleep(POLL)


def _members(folder: Path, node: str = "") -> list[Process]:
    """The processes of the cluster in `folder`, or of one of its nodes; Slurm's own first, then the jobs'."""
    conf = str(folder.absolute() / "etc" / "slurm.conf")
    parents = {int(path.name): _parent(int(path.name)) for path in Path("/proc").glob("[0-9]*")}
    spared = set(_ancestors(os.getpid(), parents)) | {os.getpid()}
    roots: set[int] = set()
    for pid in parents.keys() - spared:
        env = _environ(pid)
        if env.get("SLURM_CONF") != conf:
            continue
        command = _command(pid)
        if "SLURM_JOB_ID" in env:
            belongs = not node or env.get("SLURMD_NODENAME") == node
        elif command.startswith("slurm"):
            belongs = not node or _writes(pid, folder.absolute() / "log" / f"{node}.log")
        else:
            belongs = not node and command in CLIENTS
        if belongs:
            roots.add(pid)
    below = {pid for pid in parents.keys() - spared if not roots.isdisjoint(_ancestors(pid, parents))}
    found = sorted(roots | below, key=lambda pid: (not _command(pid).startswith("slurm"), pid))
    return [process for process in map(Process.of, found) if process is not None]


def _ancestors(pid: int, parents: dict[int, int]) -> Iterator[int]:
    while pid := parents.get(pid, 0):
        yield pid


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat (proc(5)) from the third on, the state."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _environ(pid: int) -> dict[str, str]:
    """The environment that the process began with; empty for one that ended or is another user's."""
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return {key: value for key, _, value in (item.partition("=") for item in raw.split("\0"))}


def _open_files(pid: int) -> Iterator[tuple[Path, str]]:
    """The process's file descriptors: the link in /proc, and where it leads."""
    with contextlib.suppress(OSError):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                yield fd, os.readlink(fd)


def _writes(pid: int, path: Path) -> bool:
    """Whether the process has the file open to write: a slurmstepd tells its node only by the log it has."""
    with contextlib.suppress(OSError):
        return any(target == str(path) and fd.lstat().st_mode & stat.S_IWUSR for fd, target in _open_files(pid))
    return False


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.slurm.cluster", description="A Slurm to try by hand")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start one in FOLDER and print what makes commands talk to it")
    up.add_argument("folder", type=Path)
    up.add_argument("--nodes", type=int, default=2)
    up.add_argument("--gpus", type=int, default=4)
    up.add_argument("--cpus", type=int, default=8)
    down = commands.add_parser("down", help="stop the one in FOLDER; its logs stay")
    down.add_argument("folder", type=Path)
    args = parser.parse_args()
    if args.command == "down":
        Cluster.reap(args.folder)
        return
    cluster = Cluster(args.folder, args.nodes, args.gpus, args.cpus)
    cluster.start()
    cluster.disown()
    print(f"export SLURM_CONF={cluster.env['SLURM_CONF']}")


if __name__ == "__main__":
    main()
