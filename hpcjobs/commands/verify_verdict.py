"""The findings of verify as exit code, JSON and text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpcjobs.commands.status import Status
from hpcjobs.compare.world_sizes import Mismatch
from hpcjobs.errors import IncompleteError
from hpcjobs.run_folder.run_state import RunState


@dataclass(frozen=True, kw_only=True)
class VerifyVerdict:
    """The runs by world size, and how their results differ; the file `flips` has all flips.

    `byte_identical` is None if fewer than two runs have results. `absent` counts samples that a run lacks and others
    have. `next` is the command that requires identical results.
    """

    runs: dict[int, Status]
    samples: int
    absent: dict[int, int]
    byte_identical: bool | None
    flips: Path
    differ: int
    first_flips: list[Mismatch]
    deterministic: bool
    next: str | None

    @property
    def identical(self) -> bool:
        """Whether every run is complete and no sample differs."""
        return self._agree and self._states == {RunState.COMPLETE}

    @property
    def _agree(self) -> bool:
        """Whether nothing differs, and no complete run lacks a sample."""
        lost = [size for size, count in self.absent.items() if count and self.runs[size].state == RunState.COMPLETE]
        return self.differ == 0 and not lost

    @property
    def _states(self) -> set[RunState]:
        return {status.state for status in self.runs.values()}

    def exit_code(self) -> int:
        """0 identical; 1 a sample differs or a run failed; 3 a run is incomplete."""
        if self.identical:
            return 0
        return IncompleteError.exit_code if self._agree and all(state.merged for state in self._states) else 1

    def values(self) -> dict[str, object]:
        """The verdict as JSON values, without the flips."""
        runs = [
            {"world_size": size, "state": status.state, "folder": status.folder, "rows": status.rows,
             "missing": status.rows - status.done, "first_error": status.first_error}
            for size, status in self.runs.items()
        ]  # fmt: skip
        return {
            "identical": self.identical, "byte_identical": self.byte_identical, "samples": self.samples,
            "flip_count": self.differ, "deterministic": self.deterministic, "world_sizes": list(self.runs),
            "runs": runs, "flips_file": str(self.flips), "next": self.next,
        }  # fmt: skip

    def lines(self) -> Iterator[str]:
        """The verdict as text: headline, first flips, and the run folders."""
        yield self._headline()
        for flip in self.first_flips:
            yield from flip.lines()
        if self.differ > len(self.first_flips):
            yield f"all {self.differ} samples that differ: {self.flips}"
        for size, status in self.runs.items():
            yield f"w{size:<8} {status.state}, {status.done}/{status.rows} samples  {status.folder}"

    def advice(self) -> Iterator[str]:
        """Why runs are not complete, and the next commands."""
        for size, status in self.runs.items():
            if status.state == RunState.COMPLETE:
                continue
            judged = status.metrics.verdict.why if status.metrics else ""
            yield f"world size {size}: {status.state}: {status.first_error or judged or 'no rank said why'}"
            verb = "resume" if status.state == RunState.INCOMPLETE else "logs --errors"
            yield f"next: hpcjobs {verb} {status.folder}"
        if self.next:
            yield f"run.deterministic is false; true makes it a requirement that nothing differs\nnext: {self.next}"

    def _headline(self) -> str:
        sizes = ", ".join(map(str, self.runs))
        if self.byte_identical is None:
            return f"nothing to compare: fewer than two of the runs at world sizes {sizes} have results"
        if self.differ:
            line = f"differs   {self.differ} of {self.samples} samples at world sizes {sizes}"
        else:
            word = "identical" if self.identical else "no flips "
            line = f"{word} {self.samples} samples at world sizes {', '.join(map(str, self.absent))}"
        absent = [f"; {size} lacks {count} that others have" for size, count in self.absent.items() if count]
        return f"{line}{''.join(absent)}; results.parquet is {'' if self.byte_identical else 'not '}byte-identical"
