"""sweep on a rank: points from the ledger, each a run of the user's program."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hpcjobs.config.shape import shape_of
from hpcjobs.engines.base import Source
from hpcjobs.requests import Completion, Request, SampleError, TaskType
from hpcjobs.run_folder.files import make_folder, open_file, user_umask
from hpcjobs.run_folder.snapshot import program_command
from hpcjobs.worker.eval import run_answers
from hpcjobs.worker.guard import die_with_parent
from hpcjobs.worker.script import Program, how_ended, marked, revealed
from hpcjobs.worker.signals import Terminated

if TYPE_CHECKING:
    from hpcjobs.distributed.work import Work

log = logging.getLogger(__name__)
_TAIL, _LINE = 4096, 300
_POLL = 0.2
# The largest result that is kept in the table (bytes).
MOST_RESULT = 1 << 20


def run_sweep(work: Work) -> None:
    """Run this rank's share of a sweep's points."""
    revealed(work.plan.argv, work.plan.run)  # that is missing now, not at each point
    run_answers(work, PointEngine(work))


class PointEngine:
    """Runs a program for each request, one at a time, as often again as `run.retries` says where it fails.

    The text of a completion is JSON: `exit_code`, `seconds`, `host`, `tries`, `last_line` of its output, and `result`,
    what the program wrote to the file $HPCJOBS_RESULT as JSON. A point that fails in each try is an error.
    """

    weights: ClassVar[bool] = False
    tasks: ClassVar[tuple[TaskType, ...]] = ("generate",)
    batch_size = 1

    def __init__(self, work: Work) -> None:
        self._work, self._folder = work, make_folder(work.paths.logs / "points")
        self._gpus = share_of_gpus(work)

    def stream(self, requests: Source) -> Iterator[Completion]:
        """Completions in the order of the requests. Raises Terminated where a point was ended by the end of the job."""
        for request in requests:
            if request is not None:
                yield self._run(request)

    def _run(self, request: Request) -> Completion:
        started, tries = time.time(), self._work.config.run.retries + 1
        for number in range(1, tries + 1):
            values = self._try(request, number, tries)
            if not values["exit_code"]:
                break
        took, error = time.time() - started, None
        if code := values["exit_code"]:
            tried = f" in each of {tries} tries" if tries > 1 else ""
            message = f"{how_ended(code)} on {values['host']}{tried}: {values['last_line']}"
            error = SampleError("ProgramError", message[:2000])
        return Completion(
            index=request.index, text="" if error else json.dumps(values), finish_reason="stop", error=error,
            started_at=started, seconds=took,
        )  # fmt: skip

    def _try(self, request: Request, number: int, tries: int) -> dict[str, Any]:
        work, asked = self._work, json.loads(str(request.prompt))
        make_folder(self._folder)  # what runs here may remove what it likes
        # Names of this rank alone: what a killed rank's program has left running writes to others.
        mine = f"{request.index}-{work.rank.attempt}-{work.rank.rank}"
        output, result = self._folder / f"{mine}.out", self._folder / f".{mine}-{number}.json"
        words, folders = program_command(work.paths, work.plan.code, asked["argv"])
        own = {
            "HPCJOBS_INDEX": str(request.index), "HPCJOBS_POINT": json.dumps(asked["point"]),
            "HPCJOBS_RESULT": str(result), "HPCJOBS_ATTEMPT": work.rank.attempt, "HPCJOBS_TRY": str(number),
        }  # fmt: skip
        env = marked(dict(os.environ) | asked["env"] | self._gpus | own, work)
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [*folders, env.get("PYTHONPATH", "")]))
        began = time.time()
        with os.fdopen(open_file(output, os.O_WRONLY | os.O_APPEND), "ab") as file:
            file.write(f"# point {request.id}, try {number} of {tries} on {work.rank.host}\n".encode())
            file.flush()
            start = os.fstat(file.fileno()).st_size
            code, said = self._execute(words, env, file.fileno())
        values = {
            "exit_code": code, "seconds": round(time.time() - began, 3), "host": work.rank.host, "tries": number,
            "last_line": said or _last_line(output, start), "result": _result(result),
        }  # fmt: skip
        if code:
            log.warning("point %s: %s, try %d of %d", request.id, how_ended(code), number, tries)
        return values

    def _execute(self, words: list[str], env: dict[str, str], output: int) -> tuple[int, str]:
        work = self._work
        try:
            child = subprocess.Popen(
                words, env=env, cwd=work.plan.code.cwd, umask=user_umask(), preexec_fn=die_with_parent,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            return 127, f"{words[0]} cannot be started: {error}"
        program = Program(child, env)
        try:
            while (code := program.await_end(_POLL)) is None:
                if work.drain.reason and work.drain.left() <= 0:
                    break
        finally:
            program.end()
        if work.drain.reason:  # Slurm has sent SIGTERM to it, too: it was interrupted, whatever it says, and runs again
            raise Terminated(work.drain.reason)
        return code or 0, ""


def share_of_gpus(work: Work) -> dict[str, str]:
    """This rank's share of the GPUs of its node."""
    rank, shape = work.rank, shape_of(work.config.cluster, work.config.model.gpus_per_rank)
    count = shape.gpus_per_node // max(shape.ranks_per_node, 1)
    if not count:
        return {}
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    known = seen.split(",") if seen else [str(number) for number in range(shape.gpus_per_node)]
    if len(known) <= count:
        return {}
    mine = known[rank.local_rank * count : (rank.local_rank + 1) * count]
    return {"CUDA_VISIBLE_DEVICES": ",".join(mine)}


def _last_line(output: Path, start: int) -> str:
    """The last line that was printed behind `start`."""
    try:
        with output.open("rb") as file:
            file.seek(max(start, output.stat().st_size - _TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:  # the program has removed it
        return ""
    return next((line for line in reversed(lines) if line.strip()), "").strip()[:_LINE]


def _result(path: Path) -> object:
    """What the program wrote; None for nothing; a text that says what is wrong with it. NaN and infinity are texts."""
    try:
        if not path.exists():
            return None
        if not path.is_file() or path.stat().st_size > MOST_RESULT:
            return f"no file of at most {MOST_RESULT:,} bytes"
        found: object = json.loads(path.read_bytes(), parse_constant=str, parse_float=_float)
        json.dumps(found)
    except (ValueError, RecursionError, OSError) as error:
        return f"not JSON: {error}"
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    return found


def _float(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else text
