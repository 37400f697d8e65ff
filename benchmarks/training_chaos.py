"""Random faults against trainings: real ranks with their guards, the tiny model, real signals and full disks.

    python -m benchmarks.training_chaos --trials N [--seed S] [--first K] [--keep] [--verbose]
    python -m benchmarks.training_chaos --slurm --trials N [--seed S] [--first K] [--keep] [--verbose]

A trial is a training: on one, two or three ranks, with background checkpoints, FSDP, LoRA, or keeping the best. In up
to four starts something befalls it while it begins, makes its tokens, steps, writes a checkpoint or exports: SIGKILL of
a rank, a guard, of both, of all; SIGSTOP of ranks that nobody wakes, that are woken, or of everything for some seconds;
SIGTERM; a full disk. Between the starts a file is damaged (tokens, a checkpoint, the model, a heartbeat, the last line
of a journal), or the number of ranks is another. Then it goes to its end undisturbed: losses, gradient norms and
weights must be, bit for bit, those of a run that nothing happened to (near them where the number of ranks was another),
and each step's samples the same. A start that stopped ranks hold for longer than `run.lease_timeout` and 15 s is held.

Of each six trials one is launched by `hpcjobs submit train --executor local`, and the faults meet its supervisor too.
With --slurm each is launched on a cluster of three nodes that is started for it (training_launched.py).
"""

from __future__ import annotations

import argparse
import logging
import random
import secrets
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.training_launched import run_local_trial, slurm_trials
from benchmarks.training_setting import SETTINGS
from benchmarks.training_trial import FAULTS, TrainingTrial
from tests.disks import small_disk
from tests.runs import MEMORY

Told = tuple[Counter[str], list[str], str]
_LOCAL_EACH = 6


def file_trial(seed: int) -> Callable[[Path, int], Told]:
    """What runs trial `number` in a folder."""

    def attempt(folder: Path, number: int) -> Told:
        rng = random.Random(f"{seed}-{number}")
        if number % _LOCAL_EACH == _LOCAL_EACH - 1:
            return run_local_trial(folder, rng)
        setting = rng.choice(SETTINGS)
        faults = tuple(rng.choice(FAULTS) for _ in range(rng.randint(1, 4)))
        with small_disk(folder / "disk", "size=96m") as disk:
            trial = TrainingTrial(setting.plan(disk.path / "run"), disk, rng, setting)
            trial.run(faults)
        return trial.counts, trial.problems, f"{setting.kind} {setting.ranks} {' '.join(trial.said)}"

    return attempt


def run_trials(given: argparse.Namespace, attempt: Callable[[Path, int], Told]) -> tuple[Counter[str], int]:
    """All counts, and how many trials failed; the folder of a failed one is kept and named."""
    total, failed = Counter[str](), 0
    for number in range(given.first, given.first + given.trials):
        folder = Path(tempfile.mkdtemp(prefix=f"training-chaos-{given.seed}-{number}-", dir=MEMORY))
        try:
            counts, problems, said = attempt(folder, number)
        except Exception:  # such as a start that never ends: one more thing that was wrong
            counts, problems, said = Counter[str](), [traceback.format_exc()], ""
        total.update(counts + Counter(trials=1, wrong=bool(problems)))
        failed += bool(problems)
        if given.verbose:
            print(number, said, flush=True)
        for problem in problems:
            where = f"trial {number} of seed {given.seed} FAILED in {folder}"
            print(f"{where}: {said}: {problem}", file=sys.stderr, flush=True)
        if not given.keep and not problems:
            shutil.rmtree(folder, ignore_errors=True)
    return total, failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--slurm", action="store_true", help="on a Slurm cluster of its own")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--first", type=int, default=0, help="number of the first trial, to repeat one")
    parser.add_argument("--keep", action="store_true", help="keep every run folder")
    parser.add_argument("--verbose", action="store_true", help="a line a trial")
    given = parser.parse_args()
    logging.getLogger("hpcjobs").setLevel(logging.CRITICAL)  # lost ranks and damaged files are what this is about
    if given.slurm:
        with slurm_trials(given.seed) as attempt:
            total, failed = run_trials(given, attempt)
    else:
        total, failed = run_trials(given, file_trial(given.seed))
    names = ["trials", "wrong", *sorted(total.keys() - {"trials", "wrong"})]
    print(" | ".join(names))
    print(" | ".join(str(total[name]).rjust(len(name)) for name in names))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
