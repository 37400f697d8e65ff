"""Faults: what befalls a run on a real cluster, and what of it is made good again some seconds later."""

from __future__ import annotations

import functools
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.chaos_life import file_clock
from benchmarks.chaos_rank import SlurmRank
from hpcjobs.run_folder.heartbeat import read_heartbeats
from tests.runs import records_in
from tests.slurm.site import Site

# How long a rank sleeps, a node is without power, the controller is away or takes connections without an answer, and
# accounting is away (seconds).
_SLEEP, _DARK, _AWAY, _SILENT, _UNACCOUNTED = (0.5, 12.0), (1.0, 20.0), (0.5, 6.0), (1.0, 25.0), (5.0, 60.0)
_DEATH_SECONDS = 30.0


class Faults:
    """What is done to the ranks, nodes and daemons of one run; `counts` says how often. All is drawn from `rng`.

    While `kills_merge` is set, the first merge job that is seen is killed.
    """

    def __init__(self, site: Site, run: str, rng: random.Random) -> None:
        self.counts, self.kills_merge = Counter[str](), False
        self._site, self._paths, self._run, self._rng = site, site.paths(run), run, rng
        self._lives: dict[str, SlurmRank] = {}
        self._due: list[tuple[float, Callable[[], None]]] = []
        self._unaccounted = False

    @property
    def lives(self) -> list[SlurmRank]:
        """Every rank that has shown itself."""
        for vitals in read_heartbeats(self._paths.heartbeats):
            self._lives.setdefault(vitals.name, SlurmRank.of(vitals, self._paths))
        return list(self._lives.values())

    @property
    def alive(self) -> list[SlurmRank]:
        return [life for life in self.lives if life.alive]

    def inject(self, name: str) -> None:
        """One fault, now."""
        {
            "kill": self._kill, "guard": self._kill_with_guard, "stop": self._stop, "node": self._cut_power,
            "preempt": self._preempt, "evict": self._preempt, "lose": self._lose_a_journal,
            "controller": self._stop_controller, "silence": self._suspend_controller, "dbd": self._stop_accounting,
        }[name]()  # fmt: skip

    def pause(self, seconds: float) -> None:
        """Let time pass, doing what is due."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._mend()
            if self.kills_merge:
                self._kill_merge()
            time.sleep(0.1)

    def until(self, what: str, look: Callable[[], bool], timeout: float) -> None:
        """Let time pass until `look` says yes; an AssertionError after the deadline."""
        end = time.monotonic() + timeout
        while not look():
            assert time.monotonic() < end, f"waited {timeout:g} s in vain for {what}"
            self.pause(0.2)

    def mend_all(self) -> None:
        """Make good at once what would have been later."""
        self._due = [(0.0, act) for _, act in self._due]
        self._mend()

    def _kill(self) -> None:
        """SIGKILL of one rank or more."""
        for life in self._some():
            self._say_killed(life)
            life.send(signal.SIGKILL)

    def _kill_with_guard(self) -> None:
        for life in self._some():
            self._say_killed(life)
            life.send_to_guard(signal.SIGKILL)
            life.send(signal.SIGKILL)

    def _some(self) -> list[SlurmRank]:
        live = self.alive
        return self._rng.sample(live, min(len(live), self._rng.choice((1, 1, 2, 6))))

    def _stop(self) -> None:
        """SIGSTOP of a rank or two; they wake some seconds later, before or after their leases are lost."""
        live = [life for life in self.alive if not life.stopped]
        for life in self._rng.sample(live, min(len(live), self._rng.randint(1, 2))):
            life.stopped = True
            life.send(signal.SIGSTOP)
            self.counts["stops"] += 1
            self._later(_SLEEP, functools.partial(self._wake, life))

    def _wake(self, life: SlurmRank) -> None:
        if life.stopped:
            life.stopped, life.woken = False, file_clock(self._paths.root)
            life.send(signal.SIGCONT)

    def _cut_power(self) -> None:
        """A node that works is gone; it is back some seconds later, seen as down by then or not."""
        hosts = sorted({life.host for life in self.alive})
        if not hosts:
            return
        node = self._rng.choice(hosts)
        for life in self.alive:
            if life.host == node:
                self._say_killed(life)
        self._site.cluster.kill_node(node)
        self.counts["nodes"] += 1
        self._later(_DARK, lambda: self._site.cluster.start_node(node))

    def _preempt(self) -> None:
        """A short job of a partition that comes first."""
        nodes, where = self._rng.randint(1, len(self._site.cluster.nodes)), ("--partition=urgent", "--exclusive")
        self._site.run("sbatch", *where, f"--nodes={nodes}", "--output=/dev/null", "--wrap", "sleep 1")
        self.counts["preemptions"] += 1

    def _stop_controller(self) -> None:
        """slurmctld is away for some seconds; nothing is mended meanwhile, for it could not be seen."""
        self._site.cluster.stop_ctld()
        time.sleep(self._rng.uniform(*_AWAY))
        self._site.cluster.start_ctld()
        self.counts["controllers"] += 1

    def _suspend_controller(self) -> None:
        """slurmctld takes connections and answers none, for some seconds."""
        self._site.cluster.pause_ctld()
        time.sleep(self._rng.uniform(*_SILENT))
        self._site.cluster.continue_ctld()
        self.counts["silences"] += 1

    def _stop_accounting(self) -> None:
        """slurmdbd is away: sacct has no answer for jobs that squeue has forgotten."""
        if not self._unaccounted:
            self._unaccounted = True
            self._site.cluster.stop_dbd()
            self.counts["dbd"] += 1
            self._later(_UNACCOUNTED, self._start_accounting)

    def _start_accounting(self) -> None:
        self._site.cluster.start_dbd()
        self._unaccounted = False

    def _lose_a_journal(self) -> None:
        """A dead rank's journal is gone."""
        if not self._dead_journals():
            self._kill()
            killed = [life for life in self.lives if life.killed]
            self.until("a rank's death", lambda: all(life.identity.is_dead() for life in killed), _DEATH_SECONDS)
        if dead := self._dead_journals():
            journal = self._rng.choice(dead)
            self.counts["deleted"] += len(records_in(journal))
            journal.unlink()

    def _dead_journals(self) -> list[Path]:
        return [
            life.journal for life in self.lives if life.killed and life.identity.is_dead() and life.journal.exists()
        ]

    def _kill_merge(self) -> None:
        """SIGKILL of the merge job's processes, once there are some."""
        name = f"{self._run}.merge"
        if found := [process for process in self._site.cluster.processes() if job_name(process.pid) == name]:
            time.sleep(self._rng.uniform(0.0, 0.7))
            hit = any(process.alive for process in found)
            self.kills_merge = not hit
            self.counts["merges"] += hit
            for process in found:
                process.kill()

    def _say_killed(self, life: SlurmRank) -> None:
        life.killed, life.stopped = file_clock(self._paths.root), False
        self.counts["kills"] += 1

    def _later(self, seconds: tuple[float, float], act: Callable[[], None]) -> None:
        self._due.append((time.monotonic() + self._rng.uniform(*seconds), act))

    def _mend(self) -> None:
        due = [entry for entry in self._due if entry[0] < time.monotonic()]
        self._due = [entry for entry in self._due if entry not in due]
        for _, act in due:
            act()


def job_name(pid: int) -> str:
    """The Slurm job that a process is of; '' for none, and for a daemon or step of Slurm's."""
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    return next((line.partition("=")[2] for line in environ if line.startswith("SLURM_JOB_NAME=")), "")
