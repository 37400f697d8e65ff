"""`python -m tests.reference.lm_eval_library [NAME...]`: compare all tasks and options, or those of these tasks.

`--write` compares all and writes the table of docs/lm-eval-tasks.md; `--answers` writes answers.json: what the model
says. It takes five minutes on one core.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.reference.lm_eval_library.bench import Bench, Case, Outcome
from tests.reference.lm_eval_library.cases import cases
from tests.reference.lm_eval_library.hub import small_model
from tests.reference.lm_eval_library.page import write
from tests.reference.lm_eval_library.say import write_answers


def main(names: list[str]) -> int:
    """Print a line for each case; the number of those that differ."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(small_model(Path(folder) / "model"))
        if names == ["--answers"]:
            write_answers(bench)
            return 0
        every = cases(Path(folder) / "tasks")
        chosen = [case for case in every if names in ([], ["--write"]) or case.task in names]
        found = [(case, _compared(bench, case, Path(folder) / str(n))) for n, case in enumerate(chosen)]
    if names == ["--write"]:
        write(found)
    return sum(bool(outcome.differences) for _, outcome in found)


def _compared(bench: Bench, case: Case, folder: Path) -> Outcome:
    began = time.monotonic()
    try:
        found = bench.compare(case, folder)
    except Exception as error:  # late is wrong
        found = Outcome(differences=(f"{type(error).__name__}: {error}",))
    state = "DIFFERS" if found.differences else "refused" if found.refused else "equal"
    print(f"{case.title}: {state}, {found.values} values, {found.samples} samples, {time.monotonic() - began:.1f} s")
    print("   ", {key: round(float(value or 0), 4) for key, value in found.metrics.items()}, found.refused[:150])
    for one in found.differences[:4]:
        print("   ", one[:300], flush=True)
    return found


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))
