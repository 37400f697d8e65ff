"""The launches of a run: the jobs that were queued for it, with their exact scripts.

What is true stands in `launches/` (launch_files.py). submission.json is written from it, for people and programs; runs
of earlier versions have only that.
"""

from __future__ import annotations

import dataclasses
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpcjobs.run_folder.files import read_json, write_json
from hpcjobs.run_folder.launch_files import LaunchFacts, LaunchFiles
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.run_folder.process import Identity

# How long a command on another machine may take to queue its jobs before it is considered dead (seconds).
_STARTING_SECONDS = 60.0
# What only launches/ has.
_OWN = {"by", "host", "key", "launched", "cancelled", "starting"}


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One launch of a run, by submit, resume or join. Immutable: more information makes a new one.

    `jobs` names the Slurm jobs or the local supervisor's process. A Slurm job has a key, recorded before sbatch is
    called: it identifies a job whose id was never received. The ranks of a `joined` launch were added to the current
    round. `by` is the process that starts it, on `host`, until it is `launched`; `starting`: that process may still be
    queueing jobs. `key` is in the environment of local processes. `indexes` are the
    copies that it starts, of an array of programs.
    """

    number: int
    executor: str
    jobs: Mapping[str, str]
    shape: str
    ranks: int
    scripts: Mapping[str, str] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    supervisor: Mapping[str, Any] = field(default_factory=dict)
    submitted_at: float = field(default_factory=time.time)
    automatic: bool = False
    keys: Mapping[str, str] = field(default_factory=dict)
    round: int = 0
    joined: bool = False
    notes: tuple[str, ...] = ()
    by: Mapping[str, Any] = field(default_factory=dict)
    host: str = ""
    key: str = ""
    launched: bool = True
    cancelled: bool = False
    starting: bool = False
    indexes: tuple[int, ...] = ()

    def with_job(self, kind: str, job_id: str) -> Launch:
        """The launch with the id of one more job."""
        return dataclasses.replace(self, jobs={**self.jobs, kind: job_id})

    @property
    def work_jobs(self) -> list[str]:
        """The ids of the jobs that run ranks."""
        return [job_id for kind, job_id in self.jobs.items() if not kind.startswith("merge")]

    @property
    def unseen(self) -> set[str]:
        """The kinds of jobs that were to be queued, and whose ids are not known."""
        return self.keys.keys() - self.jobs.keys()

    def owns(self, attempt: str) -> bool:
        """Whether `attempt` is a start or a requeue of this launch."""
        if self.executor == "slurm":  # `12.0.0`, or `12_3.0.0` of an array
            return any(attempt.startswith((f"{job_id}.", f"{job_id}_")) for job_id in self.work_jobs)
        return self.executor != "local" or attempt.startswith(f"local{self.number}t")


def read_launches(paths: RunPaths) -> list[Launch]:
    """The launches of a run that count, oldest first; none if it was only planned."""
    files, final = LaunchFiles(paths), set[int]()
    while True:
        listing = files.list()
        found = [_read(files, number, facts) for number, facts in listing.items() if "void" not in facts.facts]
        ended = {one.number for one in found if not one.launched and not one.starting}
        if ended <= final:
            break
        final |= ended  # the last that their commands wrote may be newer than this listing
    earlier = [one for one in _submitted(paths) if one.number not in listing]
    return sorted([*earlier, *found], key=lambda launch: launch.number)


def next_number(paths: RunPaths) -> int:
    """The number of the next launch."""
    numbers = [*LaunchFiles(paths).list(), *(one.number for one in _submitted(paths))]
    return max(numbers, default=-1) + 1


def take_launch(paths: RunPaths, launch: Launch) -> bool:
    """Record a new launch by this process; False if another command has taken its number."""
    author = dataclasses.replace(launch, by=Identity.own().values(), host=socket.gethostname(), launched=False)
    if not LaunchFiles(paths).take(launch.number, _first(author)):
        return False
    write_submission(paths)
    return True


def record_launch(paths: RunPaths, launch: Launch) -> None:
    """Record a launch with everything that is known of it. What is there stays as it is."""
    files = LaunchFiles(paths)
    files.take(launch.number, _first(launch))
    for kind, key in launch.keys.items():
        files.note_key(launch.number, kind, key, launch.scripts.get(kind, ""))
    if launch.supervisor:
        files.note_process(launch.number, launch.supervisor)
    for kind, job_id in launch.jobs.items():
        files.note_job(launch.number, kind, job_id)
    for fact in ("launched", "cancelled"):
        if getattr(launch, fact):
            files.mark(launch.number, fact)
    write_submission(paths)


def write_submission(paths: RunPaths) -> None:
    """Write submission.json from the records. Whoever writes it last has seen every record that was there by then."""
    launches = None
    while launches != (now := [_for_people(one) for one in read_launches(paths)]):
        launches = now
        write_json(paths.submission, {"launches": launches})


def together(launches: Sequence[Launch]) -> list[Launch]:
    """The newest launch, and before it those of the same round that it has joined."""
    first = len(launches) - 1
    while first > 0 and launches[first].joined:
        first -= 1
    return list(launches[max(first, 0) :])


def _read(files: LaunchFiles, number: int, facts: LaunchFacts) -> Launch:
    values = files.read(number)
    queued = {kind: files.read(number, f"{kind}.key.json") for kind in sorted(facts.keys - facts.refused, key=_order)}
    supervisor = files.read(number, "process.json") if "process.json" in facts.facts else {}
    named = {"supervisor": str(supervisor["pid"])} if supervisor else {}
    refused = [f"{kind}: {files.text(number, f'{kind}.refused')}" for kind in sorted(facts.refused)]
    return Launch(
        **values
        | {
            "commands": tuple(values["commands"]),
            "indexes": tuple(values.get("indexes", ())),
            "notes": (*values["notes"], *refused),
            "keys": {kind: one["key"] for kind, one in queued.items()},
            "scripts": {kind: one["script"] for kind, one in queued.items()},
            "jobs": named | dict(_named(facts.jobs)),
            "supervisor": supervisor,
            "launched": "launched" in facts.facts,
            "starting": "launched" not in facts.facts and _lives(values),
            "cancelled": "cancelled" in facts.facts,
        }
    )


def _lives(values: Mapping[str, Any]) -> bool:
    """Whether the process that launches may be alive; on another machine it is given some time."""
    if not values["by"]:
        return False
    author = Identity(**values["by"])
    if author.machine == Identity.own().machine:
        return not author.is_dead()
    return time.time() - float(values["submitted_at"]) < _STARTING_SECONDS


def _order(kind: str) -> tuple[bool, int, str]:
    """Jobs as they are queued: work, work2, work10, merge."""
    return kind.startswith("merge"), len(kind), kind


def _named(jobs: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """(kind, id) of each job; where a kind has several jobs, all but the first are named with their id."""
    found = []
    for kind in sorted(jobs, key=_order):
        first, *more = sorted(jobs[kind], key=lambda job_id: (len(job_id), job_id))
        found += [(kind, first), *((f"{kind}_{job_id}", job_id) for job_id in more)]
    return found


def _first(launch: Launch) -> dict[str, Any]:
    """What is known of a launch before anything is queued."""
    later = {"jobs", "keys", "scripts", "supervisor", "launched", "cancelled", "starting"}
    return _without_none(launch, later)


def _for_people(launch: Launch) -> dict[str, Any]:
    return _without_none(launch, _OWN)


def _without_none(launch: Launch, names: set[str]) -> dict[str, Any]:
    """The fields but these, and without `indexes` where there are none: earlier versions do not know the key."""
    left_out = names if launch.indexes else {*names, "indexes"}
    return {name: value for name, value in dataclasses.asdict(launch).items() if name not in left_out}


def _submitted(paths: RunPaths) -> list[Launch]:
    """The launches in submission.json, which in runs of earlier versions are all."""
    if not paths.submission.exists():
        return []
    known, lists = {one.name for one in dataclasses.fields(Launch)}, ("commands", "notes", "indexes")
    return [
        Launch(
            **{name: value for name, value in values.items() if name in known}
            | {name: tuple(values.get(name, ())) for name in lists}
        )
        for values in read_json(paths.submission)["launches"]
    ]
