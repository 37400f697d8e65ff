"""Random faults against the ledger: real files, real rank processes and signals, the dummy engine or the tiny model.

    python benchmarks/chaos.py --trials N [--tiny T] [--seed S] [--first K] [--keep] [--verbose]
    python benchmarks/chaos.py --slurm --trials N [--seed S] [--first K] [--keep] [--verbose]

A trial is a run of random size, chunks, delay and rules. While its ranks work, at random times: SIGKILL of one,
several or all ranks, of their guards or of both, some with a torn last line; SIGTERM, upon which a rank drains and
gives back what it has left; SIGSTOP past the lease timeout and a later SIGCONT, some only after the merge; ranks of a
new attempt that join the round, as a requeue does; resumes with another world size, beside stopped, draining and at
times working ranks of the old round, with or without the loss of a dead rank's journal. Then it goes to its end
undisturbed. Results must be complete, and bytes, metrics and counts those of a run that nothing happened to; merging
twice, and once more after stopped ranks woke, gives the same. The last T trials are of the tiny model.

Each eighth trial is of commands: one to four of join, resume, cancel, merge, score, report and status at the same
moment, some of them killed in the middle, and submit too, on a queue of this process (chaos_commands.py). Each job must
be in the records, the results are as above, and `rm` leaves nothing of the run.

With --slurm each trial is a run on a cluster of three nodes that is started for it, by the commands that a user
types; to the faults come the loss of a node, preemption with and without a requeue, `cancel`, `join`, a controller
that is away or does not answer, accounting that is away, a killed merge job and a time limit of one minute
(chaos_faults.py).

chaos_audit.py says how often a sample may be made. Exit code 1 where anything was wrong; its run folder is kept.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import random
import secrets
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chaos_commands import run_command_trial
from benchmarks.chaos_setting import Setting
from benchmarks.chaos_trial import run_trial
from tests.runs import MEMORY

COLUMNS = (
    "trials", "lost", "duplicated", "wrong", "over bound", "kills", "stops", "drains", "takeovers", "releases",
    "joins", "resumes", "torn", "deleted", "recomputed", "commands", "cut short", "unrecorded", "burnt",
)  # fmt: skip
SLURM_COLUMNS = (*COLUMNS, "nodes", "preemptions", "cancels", "controllers", "silences", "dbd", "merges")
TINY_IN_200 = 3
# One trial of so many is of commands.
COMMANDS_EACH = 8
Told = tuple[Counter[str], list[str], str]


@dataclass(frozen=True)
class Options:
    """How trials are run: `work` is the most seconds of one rank in each; `keep` every run folder; say each trial;
    trials from number `tiny` on are of the tiny model."""

    seed: int
    work: float = 6.0
    keep: bool = False
    verbose: bool = False
    tiny: int = sys.maxsize


def file_trial(options: Options) -> Callable[[Path, int], Told]:
    """What runs trial `number` in a folder, on files alone."""

    def attempt(folder: Path, number: int) -> Told:
        rng = random.Random(f"{options.seed}-{number}")
        if number < options.tiny and number % COMMANDS_EACH == COMMANDS_EACH - 1:
            return run_command_trial(folder, rng)
        setting = Setting.draw_tiny(rng) if number >= options.tiny else Setting.draw(rng, options.work)
        return *run_trial(folder, rng, setting), str(setting)

    return attempt


@contextlib.contextmanager
def slurm_trial(options: Options) -> Iterator[Callable[[Path, int], Told]]:
    """What runs trial `number` in a folder, on a cluster that lives as long as the block."""
    from benchmarks.chaos_slurm import run_slurm_trial, slurm_cluster

    with slurm_cluster() as cluster:
        yield lambda folder, number: run_slurm_trial(
            cluster, folder, random.Random(f"slurm-{options.seed}-{number}"), number
        )


def run_trials(
    numbers: Sequence[int], options: Options, attempt: Callable[[Path, int], Told]
) -> tuple[Counter[str], int]:
    """All counts of these trials, and how many failed; the folder of a failed one is kept and named."""
    total, failed = Counter[str](), 0
    for number in numbers:
        folder = Path(tempfile.mkdtemp(prefix=f"chaos-{options.seed}-{number}-", dir=MEMORY))
        try:
            counts, problems, said = attempt(folder, number)
        except Exception:  # such as a rank that never ends: one more thing that was wrong
            counts, problems, said = Counter(wrong=1), [traceback.format_exc()], ""
        total.update(counts + Counter(trials=1))
        failed += bool(problems)
        if options.verbose:
            print(number, said, {name: counts[name] for name in SLURM_COLUMNS if counts[name]}, flush=True)
        for problem in problems:
            print(f"trial {number} of seed {options.seed} FAILED in {folder}: {problem}", file=sys.stderr, flush=True)
        if problems:
            tiny = " --tiny 1" if number >= options.tiny else ""
            print(f"once more: --seed {options.seed} --first {number} --trials 1{tiny}", file=sys.stderr, flush=True)
        if not options.keep and not problems:
            shutil.rmtree(folder)
    return total, failed


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--tiny", type=int, help=f"how many of them are of the tiny model: {TINY_IN_200} of 200")
    parser.add_argument("--slurm", action="store_true", help="on a Slurm cluster of its own, by hpcjobs' commands")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--first", type=int, default=0, help="number of the first trial, to repeat one")
    parser.add_argument("--keep", action="store_true", help="keep every run folder")
    parser.add_argument("--verbose", action="store_true", help="a line a trial")
    return parser.parse_args()


def main() -> int:
    given = parse()
    logging.getLogger("hpcjobs").setLevel(logging.CRITICAL)  # torn lines and lost journals are what this is about
    last = given.first + given.trials
    tiny = given.trials * TINY_IN_200 // 200 if given.tiny is None else given.tiny
    options = Options(given.seed, keep=given.keep, verbose=given.verbose, tiny=last - tiny)
    trial = slurm_trial(options) if given.slurm else contextlib.nullcontext(file_trial(options))
    with trial as attempt:
        total, failed = run_trials(range(given.first, last), options, attempt)
    columns = SLURM_COLUMNS if given.slurm else COLUMNS
    print(" | ".join(columns))
    print(" | ".join(str(total[name]).rjust(len(name)) for name in columns))
    if failed:
        print(f"{failed} trials failed; seed {given.seed}: see above for their folders", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
