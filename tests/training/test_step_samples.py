"""What a step saw is one number: the same for the same samples, however the ranks share them out."""

from __future__ import annotations

import random
from pathlib import Path

from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.training.step_samples import StepSamples, read_step_samples
from hpcjobs.training.steps import read_curve
from tests.trainings import journal, record


def seen(*ranks: list[int]) -> StepSamples:
    found = StepSamples()
    for samples in ranks:
        found.add(samples)
    return found


def test_the_mark_tells_samples_apart_and_not_ranks() -> None:
    batch = random.Random(1).sample(range(10**6), 64)
    whole = seen(batch)
    assert (seen(batch[:20], batch[20:]).mark, seen(batch[::-1]).mark) == (whole.mark, whole.mark)
    assert seen(batch[32:], [], batch[:32]).samples == 64
    others = [
        seen([*batch[:-1], batch[-1] + 1]),
        seen([*batch, batch[0]]),
        seen(batch[1:]),
        seen([*batch[1:], batch[1]]),
    ]
    assert whole.mark not in [other.mark for other in others]
    assert seen([1, 4]).mark != seen([2, 3]).mark, "a plain sum is the same"


def test_marks_of_all_pairs_of_small_numbers_differ() -> None:
    marks = [seen([a, b]).mark for a in range(200) for b in range(a, 200)]
    assert len(set(marks)) == len(marks)


def test_only_steps_that_all_ranks_have_are_known_and_the_last_start_counts(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    paths.ranks.mkdir()
    journal(paths, [record(step, samples=[step]) for step in range(1, 5)])
    journal(paths, [record(step, rank=1, samples=[10 * step]) for step in range(1, 4)])
    journal(paths, [record(step, "b", samples=[7, 8], world_size=1) for step in range(3, 6)])
    found = read_step_samples(paths, read_curve(paths))
    assert sorted(found) == [1, 2, 3, 4, 5], "step 4 of the first start lacks a rank, and was run again"
    assert found[2] == seen([2], [20])
    assert found[3] == found[4] == seen([8, 7])
    paths.journal("a", 1).unlink()
    assert sorted(read_step_samples(paths, read_curve(paths))) == [3, 4, 5]
