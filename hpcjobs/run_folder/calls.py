"""The calls of a run of hpcjobs.Executor: pickled functions with their arguments, and the outcome of each.

`inputs/calls.pkl` holds pickles one behind the other, `inputs/calls.json` where each begins and ends: a function that
is called often is there once, unless it could share something with what it is given. An outcome is a file of `jobs/`
that is created once: of several that run the same call, the first one's stands. All of it is as submitit has it: a
result is the pickle of (`success`, value) or (`error`, traceback), or else of (`uncompleted` or `cancelled`, why).
"""

from __future__ import annotations

import pickle
import pickletools
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cloudpickle
from submitit.core import utils

from hpcjobs.run_folder.files import create_once, json_text, make_folder, read_json, write_whole
from hpcjobs.run_folder.paths import RunPaths

# JOB_0_result.pkl, or JOB_INDEX_0_result.pkl where there are several, and beside it `.killed-1`...
_OUTCOME = re.compile(r"[^._]+_(?:(\d+)_)?0_result\.")
_PLAIN = (type(None), bool, int, float, str, bytes)
# How deep plain data is looked at; what is deeper, or contains itself, is pickled with its function.
_DEPTH = 20
# What a pickle consists of that only names its object.
_NAMING = {"PROTO", "FRAME", "SHORT_BINUNICODE", "BINUNICODE", "MEMOIZE", "STACK_GLOBAL", "STOP"}


@dataclass(frozen=True, kw_only=True)
class CallFacts:
    """What holds for all calls of a run.

    `job_id`: their job, if Slurm does not name it. `seconds`: the time limit of a call, which is warned `warning`
    seconds before. `timeouts`: how often a call that saves its state may reach it. `path`: where to import from.
    """

    job_id: str | None
    seconds: float
    warning: float
    timeouts: int
    stderr_to_stdout: bool
    path: Sequence[str]


class PackedCalls:
    """Calls as they will be written. Raises a pickle.PicklingError that names what cannot be pickled."""

    def __init__(self, submissions: Iterable[utils.DelayedSubmission]) -> None:
        self.parts: list[bytes] = []
        self.size = 0
        self.functions: list[tuple[int, int]] = []
        self.calls: list[tuple[int | None, int, int]] = []
        self._places: dict[int, int] = {}
        self._named: dict[int, bool] = {}
        kept = []  # or another function could come to have the same id
        for number, one in enumerate(submissions):
            kept.append(one.function)
            what = f"what is given to call {number} of {name_of(one.function)}"
            if _is_plain((one.args, one.kwargs)) or self._is_named(one.function):
                place = self._place(one.function)
                self.calls.append((place, *self._add(_pickle((one.args, one.kwargs), what))))
            else:  # apart, each would have its own copy of an object that both use
                whole = _pickle((one.function, one.args, one.kwargs), what)
                self.calls.append((None, *self._add(whole)))

    def __len__(self) -> int:
        return len(self.calls)

    def _is_named(self, function: object) -> bool:
        """Whether its pickle only says where to import it from, so that it has no copy of anything."""
        if (found := self._named.get(id(function))) is None:
            operations = pickletools.genops(_pickle(function, name_of(function)))
            found = all(operation.name in _NAMING for operation, _, _ in operations)
            self._named[id(function)] = found
        return found

    def _place(self, function: object) -> int:
        if (found := self._places.get(id(function))) is None:
            found = self._places[id(function)] = len(self.functions)
            self.functions.append(self._add(_pickle(function, name_of(function))))
        return found

    def _add(self, content: bytes) -> tuple[int, int]:
        self.parts.append(content)
        self.size += len(content)
        return self.size - len(content), self.size

    def write(self, paths: RunPaths, facts: CallFacts) -> None:
        """Write both files, and make the folder of the outcomes."""
        make_folder(paths.jobs)
        write_whole(paths.calls, self.parts)
        values = asdict(facts) | {"functions": self.functions, "calls": self.calls}
        write_whole(paths.call_facts, json_text(values))


class Calls:
    """The calls of a run on disk."""

    def __init__(self, paths: RunPaths) -> None:
        values = read_json(paths.call_facts)
        self._paths, self._functions, self._calls = paths, values.pop("functions"), values.pop("calls")
        self.facts = CallFacts(**values)

    def __len__(self) -> int:
        return len(self._calls)

    def submitted(self, index: int) -> utils.DelayedSubmission:
        """A call as it was submitted. Raises what unpickling raises."""
        place, start, stop = self._calls[index]
        *whole, args, kwargs = pickle.loads(self._read(start, stop))
        function = whole[0] if place is None else pickle.loads(self._read(*self._functions[place]))
        found = utils.DelayedSubmission(function, *args, **kwargs)
        found.set_timeout(self.facts.seconds / 60, self.facts.timeouts)
        return found

    def current(self, index: int) -> utils.DelayedSubmission:
        """A call as it saved itself last, or else as it was submitted."""
        if number := self.saved(index):
            return utils.DelayedSubmission.load(self._paths.call_checkpoint(index, number))
        return self.submitted(index)

    def saved(self, index: int) -> int:
        """How often a call has saved its state."""
        number = 0
        while self._paths.call_checkpoint(index, number + 1).exists():
            number += 1
        return number

    def save(self, index: int, call: utils.DelayedSubmission) -> None:
        """Keep a call's state for its next start."""
        make_folder(self._paths.checkpoints)
        content = cloudpickle.dumps(call, pickle.HIGHEST_PROTOCOL)
        while not create_once(self._paths.call_checkpoint(index, self.saved(index) + 1), content):
            pass

    def _read(self, start: int, stop: int) -> bytes:
        with self._paths.calls.open("rb") as file:
            file.seek(start)
            return file.read(stop - start)


def _pickle(value: object, what: str) -> bytes:
    try:
        content: bytes = cloudpickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # what __reduce__ and the like raise
        raise pickle.PicklingError(f"{what} cannot be pickled: {type(error).__name__}: {error}") from error
    return content


def _is_plain(value: object, depth: int = _DEPTH) -> bool:
    """Whether it is data without objects of other kinds."""
    if type(value) in _PLAIN:
        return True
    if depth and type(value) in (list, tuple):
        return all(_is_plain(one, depth - 1) for one in value)  # type: ignore[attr-defined]
    if depth and type(value) is dict:
        return all(_is_plain(one, depth - 1) for item in value.items() for one in item)
    return False


def name_of(function: object) -> str:
    """The name of what is called, for people."""
    name = getattr(function, "__qualname__", None) or getattr(getattr(function, "func", None), "__qualname__", None)
    return name or type(function).__qualname__


def call_files(paths: RunPaths, job_id: str, task: int) -> utils.JobPaths:
    """The files of a call: `result_pickle`, `stdout`, `stderr`."""
    return utils.JobPaths(paths.jobs, job_id, task)


def call_id(job: str, index: int, count: int) -> str:
    """The id of a call: as that of an element of a job array, where there are several."""
    return f"{job}_{index}" if count > 1 else job


def forget_outcomes(paths: RunPaths, indexes: Iterable[int], round_number: int) -> None:
    """Put the outcomes of calls of one task aside, so that they are run again in this round."""
    asked = set(indexes)
    for path in list(paths.jobs.iterdir()):
        match = _OUTCOME.match(path.name)
        if match and int(match[1] or 0) in asked:
            path.rename(path.with_name(f".{path.name}.before-{round_number}"))


def end_call(path: Path, outcome: str, value: Any) -> bool:
    """Create the outcome of a call; False if it has one. Raises what pickling raises, and a DiskFullError."""
    return create_once(path, cloudpickle.dumps((outcome, value), pickle.HIGHEST_PROTOCOL))


def outcome_of(path: Path) -> str:
    """`success`, `error`, `uncompleted` or `cancelled`, without unpickling the value. Raises an OSError."""
    with path.open("rb") as file:
        for operation, value, _ in pickletools.genops(file):
            if "UNICODE" in operation.name:
                return str(value)
    return "uncompleted"
