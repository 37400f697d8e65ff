"""compare of train runs: what they came to, what differs in their configs, and their curves, by real journals."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.compare.train import BEYOND, Batches, TrainComparison, TrainSide, compare_trainings
from hpcjobs.errors import MergeError, UsageError
from hpcjobs.run_folder.files import read_json, write_json
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.training.data.tokens import TokenCount, TokenFacts
from hpcjobs.training.steps import StepRecord
from tests.trainings import ROWS, journal, plan_training, record, run_training


def training(folder: Path, records: list[StepRecord], steps: int = 8, **train: Any) -> RunPaths:
    """A planned training of two ranks with these records of rank 0, and the same of rank 1; model/ is written."""
    paths = plan_training(folder, 2, **train)
    count = TokenCount(samples=60, tokens=1000, learned=300, left_out=0)
    TokenFacts(train=count, validation=None, steps=steps, units=60, longest=64).write(paths.token_facts)
    journal(paths, records)
    journal(paths, [record(**vars(one) | {"rank": 1, "samples": [one.step + 20]}) for one in records])
    paths.model.mkdir()
    return paths


def compared(a: RunPaths, b: RunPaths) -> TrainComparison:
    return compare_trainings(TrainSide.read(a), TrainSide.read(b))


def steps(count: int, **more: Any) -> list[StepRecord]:
    return [record(step, **more) for step in range(1, count + 1)]


@pytest.fixture
def a(tmp_path: Path) -> RunPaths:
    return training(tmp_path / "a", steps(8))


def test_the_same_training_twice_differs_in_nothing(a: RunPaths, tmp_path: Path) -> None:
    found = compared(a, training(tmp_path / "b", steps(8), rows=ROWS))
    assert found.config == {"data.name": (str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"))}
    assert found.curves.steps.tolist() == list(range(1, 9))
    assert (found.curves.first_difference, found.curves.first_beyond) == (None, None)
    assert found.batches == Batches(8, 8, None), "the file has another name and the same rows"
    assert found.a.values == found.b.values
    assert found.metrics == ["loss", "eval_loss", "best_eval_loss", "tokens_per_s"]


def test_what_a_training_came_to(a: RunPaths) -> None:
    side = TrainSide.read(a)
    assert side.values == {
        "loss": 1 / 8, "eval_loss": 0.25, "best_eval_loss": 0.25, "tokens": 800, "tokens_per_s": 200.0,
        "tokens_per_s_per_rank": 100.0, "seconds": 4.0, "steps": 8, "samples": 60, "samples_read": 16,
    }  # fmt: skip
    assert [side.step_of(name) for name in ("loss", "eval_loss", "best_eval_loss")] == [8, 8, 8]
    assert side.world_sizes == [2]
    assert not a.metrics.exists(), "it is looked at, and not merged"


def test_the_first_steps_that_differ_and_the_one_that_differs_most(a: RunPaths, tmp_path: Path) -> None:
    losses = [1 / step for step in range(1, 9)]
    losses[2] = math.nextafter(losses[2], 1)
    losses[3] += BEYOND / 2
    losses[4] -= 1.5 * BEYOND
    losses[6] += 0.25
    losses[7] -= 0.125
    b = training(tmp_path / "b", [record(step, loss=loss) for step, loss in enumerate(losses, 1)])
    curves = compared(a, b).curves
    assert (curves.first_difference, curves.first_beyond) == (3, 5)
    assert curves.greatest is not None
    assert curves.steps[curves.greatest] == 7
    assert curves.b[curves.greatest] - curves.a[curves.greatest] == pytest.approx(0.25)


def test_a_loss_that_is_no_number_differs_from_one_that_is(a: RunPaths, tmp_path: Path) -> None:
    b = training(tmp_path / "b", [*steps(5), record(6, loss=float("nan"))])
    curves = compared(a, b).curves
    assert (curves.first_difference, curves.first_beyond, curves.greatest) == (6, 6, 0)
    again = compared(b, b).curves
    assert (again.first_difference, again.first_beyond) == (None, None)


def test_steps_are_compared_that_both_have(a: RunPaths, tmp_path: Path) -> None:
    found = compared(a, training(tmp_path / "b", [record(step, "b") for step in range(5, 12)], 11))
    assert found.curves.steps.tolist() == [5, 6, 7, 8]
    lines = list(found.steps())
    assert [line["step"] for line in lines] == [5, 6, 7, 8]
    assert lines[-1]["a"] == {
        "loss": 1 / 8, "eval_loss": 0.25, "learning_rate": 1e-3, "grad_norm": 1.0, "tokens": 100, "seconds": 0.5,
        "world_size": 2,
    }  # fmt: skip
    assert compared(a, training(tmp_path / "c", [record(9), record(10)], 10)).curves.greatest is None


def test_configs_differ_by_key_and_not_in_the_runs_own_name(a: RunPaths, tmp_path: Path) -> None:
    b = training(tmp_path / "b", steps(8), learning_rate=2e-3, lora={"rank": 4}, fsdp={})
    found = compared(a, b).config
    assert found["train.learning_rate"] == (1e-3, 2e-3)
    assert found["train.lora.rank"][1] == 4
    assert [name for name in found if name.startswith("run.")] == []
    assert [name for name in found if not name.startswith(("train.", "data."))] == []


def test_other_samples_are_told_from_the_same_ones_in_another_order(a: RunPaths, tmp_path: Path) -> None:
    """The two ranks of B have each other's samples; from step 6 on they have others."""
    b = training(tmp_path / "b", steps(8))
    journal(b, [record(step, samples=[step + 20 + (step >= 6)]) for step in range(1, 9)])
    journal(b, [record(step, rank=1, samples=[step]) for step in range(1, 9)])
    assert compared(a, b).batches == Batches(8, 5, 6)
    b.journal("a", 1).unlink()
    assert compared(a, b).batches == Batches(0, 0, None)
    assert TrainSide.read(b).values["samples_read"] is None


def test_row_numbers_of_other_data_say_nothing(a: RunPaths, tmp_path: Path) -> None:
    assert compared(a, training(tmp_path / "b", steps(8), rows=ROWS[:50])).batches is None


def test_a_resume_on_another_shape_has_two_world_sizes(tmp_path: Path) -> None:
    paths = training(tmp_path / "run", steps(4))
    journal(paths, [record(step, "b", world_size=4) for step in range(4, 9)])
    side = TrainSide.read(paths)
    assert side.world_sizes == [2, 4]
    assert side.training.curve.repeated == 1


def test_before_the_first_step_and_with_a_broken_journal(a: RunPaths, tmp_path: Path) -> None:
    planned = plan_training(tmp_path / "planned", 2)
    with pytest.raises(UsageError, match=rf"has not finished a step yet; next: hpcjobs status {planned.root}"):
        TrainSide.read(planned)
    path = a.journal("a", 1)
    path.write_bytes(b"{}\n" + path.read_bytes())
    with pytest.raises(MergeError, match=r"a-1\.jsonl: broken record at offset 0: .*hpcjobs resume "):
        TrainSide.read(a)


def test_a_config_of_an_older_version_has_todays_defaults(a: RunPaths, tmp_path: Path) -> None:
    """A key that A's file does not have is what it was without it."""
    text = a.config.read_text()
    assert "  clip_norm: 1.0\n" in text
    a.config.write_text(text.replace("  clip_norm: 1.0\n", ""))
    assert list(compared(a, training(tmp_path / "b", steps(8))).config) == ["data.name"]


def test_plans_without_a_hash_of_the_code_can_be_read(a: RunPaths) -> None:
    values = read_json(a.plan)
    del values["code"]["hpcjobs_sha256"]
    write_json(a.plan, values)
    assert TrainSide.read(a).plan.code.hpcjobs


@pytest.mark.model
def test_real_trainings_are_the_same_at_one_world_size_and_close_at_another(tmp_path: Path) -> None:
    runs = {}
    for name, ranks in (("one", 1), ("again", 1), ("two", 2)):
        runs[name] = plan_training(tmp_path / name, ranks, max_steps=4)
        run_training(runs[name], ranks)
    same = compared(runs["one"], runs["again"])
    assert (same.curves.first_difference, same.batches) == (None, Batches(4, 4, None))
    close = compared(runs["one"], runs["two"])
    assert (close.curves.first_beyond, close.batches) == (None, Batches(4, 4, None))
    assert (close.a.world_sizes, close.b.world_sizes) == ([1], [2])
