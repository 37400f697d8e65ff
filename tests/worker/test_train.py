"""submit train: real ranks, real losses; killed, stopped, resumed, and held against runs that nothing happened to."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.assets import ASSETS
from hpcjobs.distributed.rank import Rank
from hpcjobs.merge.train import merge_train
from hpcjobs.run_folder.files import make_folder
from hpcjobs.run_folder.heartbeat import Heartbeat, Vitals, read_heartbeat
from hpcjobs.run_folder.paths import RunPaths
from hpcjobs.training.checkpoints.checkpoint import Checkpoints, proof
from hpcjobs.training.peers import Peers
from tests.trainings import (
    TrainingRanks,
    bits,
    curve_of,
    logs_of,
    plan_training,
    run_training,
    samples_by_step,
    weights_hash,
)

pytestmark = pytest.mark.model
HELD: dict[str, Any] = {"validation_fraction": 0.1, "eval_every": 4}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """The run of one process."""
    paths = plan_training(tmp_path_factory.mktemp("one") / "run", **HELD)
    run_training(paths, 1)
    return paths


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> RunPaths:
    """The same on four ranks, which nothing happened to."""
    paths = plan_training(tmp_path_factory.mktemp("four") / "run", 4, **HELD)
    run_training(paths, 4)
    return paths


def test_each_step_on_four_ranks_is_that_of_one_process(one: RunPaths, four: RunPaths) -> None:
    alone, together = curve_of(one), curve_of(four)
    assert [record.step for record in together] == list(range(1, 9))
    assert [record.loss for record in together] == pytest.approx([record.loss for record in alone], abs=1e-5)
    assert [r.grad_norm for r in together] == pytest.approx([r.grad_norm for r in alone], abs=1e-4)
    held = [(r.step, r.eval_loss) for r in together if r.eval_loss is not None]
    assert [step for step, _ in held] == [4, 8]
    held_alone = [record.eval_loss for record in alone if record.eval_loss is not None]
    assert [loss for _, loss in held] == pytest.approx(held_alone, abs=1e-5)
    assert samples_by_step(four) == samples_by_step(one)
    assert {len(samples) for samples in samples_by_step(four).values()} == {12}
    assert alone[-1].loss < alone[0].loss / 2


def test_the_end_is_a_model_and_a_merge_that_says_so(four: RunPaths) -> None:
    import transformers

    merged = merge_train(four)
    values = json.loads(four.metrics.read_text())
    assert (merged.complete, values["complete"], values["counts"]["accepted"]) == (True, True, 8)
    curve = curve_of(four)
    assert values["metrics"]["loss"]["value"] == curve[-1].loss
    best = min(r.eval_loss for r in curve if r.eval_loss is not None)
    assert values["metrics"]["best_eval_loss"]["value"] == best
    assert [checkpoint["step"] for checkpoint in values["train"]["checkpoints"]] == [6, 8]
    files = [*four.model.iterdir(), *four.checkpoint(8).iterdir()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    model = transformers.AutoModelForCausalLM.from_pretrained(four.model)
    assert transformers.AutoTokenizer.from_pretrained(four.model).chat_template
    card = (four.model / "README.md").read_text()
    assert f"{curve[-1].loss:.4f}" in card
    assert values["provenance"]["data"]["sha256"] in card
    assert model.generation_config.eos_token_id is not None


@pytest.mark.parametrize("seed", range(2))
def test_a_killed_rank_costs_nothing_but_the_steps_since_its_checkpoint(
    four: RunPaths, tmp_path: Path, seed: int
) -> None:
    """Any rank at any step: the others end at once and name it; the next start goes on bit for bit."""
    chance = random.Random(seed)
    rank, step = chance.randrange(4), chance.randrange(1, 8)
    paths = plan_training(tmp_path / "run", 4, **HELD)
    with TrainingRanks(paths, 4, "a") as ranks:
        ranks.wait_for_step(step)
        ranks.signal(rank, signal.SIGKILL)
        assert 0 not in ranks.finish()
    for other in {0, 1, 2, 3} - {rank}:
        vitals = read_heartbeat(paths.heartbeat("a", other))
        assert vitals is not None
        assert f"rank {rank} on {vitals.host} (ended by SIGKILL) was lost" in (vitals.first_error or "")
    assert not merge_train(paths).complete
    run_training(paths, 4, "b")
    assert bits(curve_of(paths)) == bits(curve_of(four))
    assert weights_hash(paths) == weights_hash(four)
    assert merge_train(paths).complete


def test_ten_kills_in_one_run_leave_no_trace(tmp_path: Path) -> None:
    """Any rank, or all, at any moment, also while a checkpoint is written, beside the steps; each start goes on from a
    whole one."""
    train = HELD | {"max_steps": 60, "checkpoint_every": 2, "async_checkpoints": True}
    calm, paths = (plan_training(tmp_path / name, 2, **train) for name in ("calm", "run"))
    chance = random.Random(7)
    run_training(calm, 2)
    for start in range(10):
        with TrainingRanks(paths, 2, f"k{start}") as ranks:
            ranks.wait_for_step(last_checkpoint(paths) + chance.randrange(1, 6))
            time.sleep(chance.random() * 0.1)
            for rank in chance.choice([[0], [1], [0, 1]]):
                ranks.signal(rank, signal.SIGKILL)
            assert 0 not in ranks.finish()
    assert last_checkpoint(paths) < 60, "it ended before the last kill"
    run_training(paths, 2, "last")
    assert bits(curve_of(paths)) == bits(curve_of(calm))
    assert samples_by_step(paths) == samples_by_step(calm)
    assert weights_hash(paths) == weights_hash(calm)
    assert "passed over" not in logs_of(paths), "a kill has left a checkpoint that is not whole under its name"


def last_checkpoint(paths: RunPaths) -> int:
    return max(Checkpoints(paths, 2).steps(), default=0)


def test_a_stopped_rank_does_not_let_the_others_wait_for_ever(tmp_path: Path) -> None:
    paths = plan_training(tmp_path / "run", 2, max_steps=500)
    config = paths.config.read_text().replace("lease_timeout: 20.0", "lease_timeout: 3.0")
    paths.config.write_text(config)
    with TrainingRanks(paths, 2, "a") as ranks:
        ranks.wait_for_step(4)
        ranks.signal(1, signal.SIGSTOP)
        assert ranks.finish() == [1, 128 + signal.SIGKILL], "its guard ends it, or it would hold the job"
    [vitals, stopped] = [read_heartbeat(paths.heartbeat("a", rank)) for rank in range(2)]
    assert vitals
    assert stopped
    assert re.search(r"rank 1 on .*no sign of life for", vitals.first_error or "")
    assert re.fullmatch(r"ended by its guard: no sign of life for \d+ s", stopped.ended or "")
    assert stopped.state == "dead"


@pytest.mark.parametrize(("world", "here", "said"), [(2, 2, True), (2, 1, False), (3, 2, True)])
def test_a_rank_that_never_gave_a_sign_is_missed(tmp_path: Path, world: int, here: int, said: bool) -> None:
    """Killed with its guard, or stopped, before its first heartbeat. Another node may still load its image."""
    paths = RunPaths(tmp_path)
    make_folder(paths.heartbeats)
    rank = Rank(
        rank=0, world_size=world, local_rank=0, local_world_size=here, node=0, attempt="a", launcher="slurm", host="n",
    )  # fmt: skip
    vitals = Vitals(rank=0, attempt="a", host="n", world_size=world, identity={})
    peers = Peers(paths, rank, 0.05, Heartbeat(paths.heartbeat("a", 0), vitals, 5.0), 0.01, start=60.0)
    assert peers._silent(range(world)) is None
    time.sleep(0.1)
    found = peers._silent(range(world))
    assert (found or "").startswith("rank 1 (no sign of life for ") == said
    write_heartbeat_of(paths, 1)
    assert peers._silent(range(world)) is None


def write_heartbeat_of(paths: RunPaths, rank: int) -> None:
    vitals = Vitals(rank=rank, attempt="a", host="n", world_size=2, identity={})
    Heartbeat(paths.heartbeat("a", rank), vitals, 5.0).write()


@pytest.mark.parametrize("damage", ["truncated", "gone", "flipped", "facts"])
def test_damaged_tokens_are_made_again(four: RunPaths, tmp_path: Path, damage: str) -> None:
    """They are derived from the rows. No other rank reads them before (case 51)."""
    paths = plan_training(tmp_path / "run", 4, **HELD)
    with TrainingRanks(paths, 4, "a") as ranks:
        ranks.wait_for_step(4)
        ranks.signal(0, signal.SIGKILL)
        ranks.finish()
    _damage(paths, damage)
    run_training(paths, 4, "b")
    assert "the tokens are made again" in logs_of(paths)
    assert bits(curve_of(paths)) == bits(curve_of(four))
    assert weights_hash(paths) == weights_hash(four)


def _damage(paths: RunPaths, damage: str) -> None:
    whole = paths.tokens.read_bytes()
    middle = len(whole) // 2
    if damage == "truncated":
        paths.tokens.write_bytes(whole[:middle])
    elif damage == "gone":
        paths.tokens.unlink()
    elif damage == "flipped":
        paths.tokens.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    else:
        paths.token_facts.write_text('{"train": ')


def test_sigterm_makes_a_checkpoint_of_the_very_step(four: RunPaths, tmp_path: Path) -> None:
    """No step is run twice: one rank that is told to end takes all with it, in order."""
    paths = plan_training(tmp_path / "run", 4, **HELD)
    with TrainingRanks(paths, 4, "a") as ranks:
        ranks.wait_for_step(4)
        ranks.signal(2, signal.SIGTERM)
        assert ranks.finish() == [0] * 4
    last = curve_of(paths)[-1].step
    assert last < 8, "it was too quick to be interrupted"
    assert Checkpoints(paths, 2).newest().step == last
    states = [read_heartbeat(paths.heartbeat("a", rank)) for rank in range(4)]
    assert [vitals and vitals.state for vitals in states] == ["drained"] * 4
    run_training(paths, 4, "b")
    assert merge_train(paths).complete
    assert json.loads(paths.metrics.read_text())["train"]["steps_run_again"] == 0
    assert bits(curve_of(paths)) == bits(curve_of(four))
    assert weights_hash(paths) == weights_hash(four)


@pytest.mark.parametrize("world", [1, 3])
def test_another_number_of_ranks_runs_the_same_samples(four: RunPaths, tmp_path: Path, world: int) -> None:
    paths = plan_training(tmp_path / "run", 4, **HELD)
    with TrainingRanks(paths, 4, "a") as ranks:
        ranks.wait_for_step(4)
        ranks.signal(0, signal.SIGTERM)
        assert ranks.finish() == [0] * 4
    run_training(paths, world, "b")
    assert samples_by_step(paths) == samples_by_step(four)
    assert [r.loss for r in curve_of(paths)] == pytest.approx([r.loss for r in curve_of(four)], abs=1e-4)
    assert {record.world_size for record in curve_of(paths)} == {4, world}


def test_a_world_that_does_not_divide_the_batch_is_refused(tmp_path: Path) -> None:
    paths = plan_training(tmp_path / "run", 4)
    with TrainingRanks(paths, 5, "a") as ranks:
        assert ranks.finish() == [2] * 5
    assert "does not divide by 5 ranks: set it to 10 or 15, or use 2, 3, 4, 6 ranks" in logs_of(paths)


def test_a_flipped_byte_is_passed_over_and_named(one: RunPaths, tmp_path: Path) -> None:
    """The older checkpoint is taken, the steps since are run again, and the broken one is replaced."""
    root = tmp_path / "run"
    shutil.copytree(one.root, root)
    paths = RunPaths(root)
    shutil.rmtree(paths.model)
    weights = paths.checkpoint(8) / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    run_training(paths, 1, "b")
    assert "passed over checkpoint step-00000008: weights.safetensors is not what was written" in logs_of(paths)
    assert "goes on after step 6" in logs_of(paths)
    assert proof(paths.checkpoint(8)) is None
    assert bits(curve_of(paths)) == bits(curve_of(one))
    assert weights_hash(paths) == weights_hash(one)
    merge_train(paths)
    assert json.loads(paths.metrics.read_text())["train"]["steps_run_again"] == 2


def test_fsdp_on_two_ranks_is_ddp_spread_out(tmp_path: Path) -> None:
    """FSDP2 on gloo: the same losses; killed and resumed it ends where the undisturbed run does."""
    import transformers

    plain = plan_training(tmp_path / "ddp", 2, **HELD)
    run_training(plain, 2)
    sharded = plan_training(tmp_path / "fsdp", 2, **HELD, fsdp={"enabled": True})
    run_training(sharded, 2)
    assert "FSDPLlamaForCausalLM on cpu" in logs_of(sharded)
    assert [r.loss for r in curve_of(sharded)] == pytest.approx([r.loss for r in curve_of(plain)], abs=1e-5)
    assert [r.grad_norm for r in curve_of(sharded)] == pytest.approx([r.grad_norm for r in curve_of(plain)], abs=1e-4)
    paths = plan_training(tmp_path / "killed", 2, **HELD, fsdp={"enabled": True})
    with TrainingRanks(paths, 2, "a") as ranks:
        ranks.wait_for_step(4)
        ranks.signal(1, signal.SIGKILL)
        assert 0 not in ranks.finish()
    run_training(paths, 2, "b")
    assert "goes on after step" in logs_of(paths)
    assert bits(curve_of(paths)) == bits(curve_of(sharded))
    assert weights_hash(paths) == weights_hash(sharded)
    model = transformers.AutoModelForCausalLM.from_pretrained(sharded.model)
    assert type(model).__name__ == "LlamaForCausalLM"
    files = [paths.model / "model.safetensors" for paths in (plain, sharded)]
    assert files[0].stat().st_size == files[1].stat().st_size, "tied weights are there twice"
    assert json.loads((sharded.model / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]


def losses(tmp_path: Path, name: str, **train: Any) -> list[float]:
    paths = plan_training(tmp_path / name, **train)
    run_training(paths, 1)
    return [record.loss for record in curve_of(paths)]


def test_accumulation_and_checkpointed_activations_change_nothing_but_memory(one: RunPaths, tmp_path: Path) -> None:
    """Twelve at once, two at once six times, activations computed again: the same losses."""
    expected = [record.loss for record in curve_of(one)]
    assert losses(tmp_path, "at-once", **HELD, micro_batch=12) == pytest.approx(expected, abs=1e-5)
    assert losses(tmp_path, "again", **HELD, gradient_checkpointing=True) == pytest.approx(expected, abs=1e-5)


def test_bf16_is_near_and_is_no_fp32(one: RunPaths, tmp_path: Path) -> None:
    found = losses(tmp_path, "bf16", **HELD, mixed_precision="bf16")
    expected = [record.loss for record in curve_of(one)]
    assert found == pytest.approx(expected, rel=0.05)
    assert found != pytest.approx(expected, abs=1e-6)


def test_packed_samples_learn_as_they_would_alone(tmp_path: Path) -> None:
    """All rows in one step: its loss is the same in 60 padded rows and in a few full ones, at any number of ranks."""
    import numpy as np

    from hpcjobs.training.data.order import BatchOrder, Ordering
    from hpcjobs.training.data.tokens import TokenFile

    apart = plan_training(tmp_path / "apart", global_batch=60, micro_batch=60, max_steps=3)
    run_training(apart, 1)
    lengths = TokenFile(apart.tokens).lengths
    units = BatchOrder(lengths, Ordering(0, 1, 128)).units
    assert max(int(lengths[unit].sum()) for unit in units) <= 128
    assert len(units) == -(-int(np.sum(lengths)) // 128), "the rows are not full"
    batch = len(units) - len(units) % 2
    packed = plan_training(
        tmp_path / "packed", 2, global_batch=batch, micro_batch=3, max_steps=3, packing=True, max_length=128
    )
    assert batch == len(units), "the number of rows must be even, for two ranks"
    run_training(packed, 2)
    assert [r.loss for r in curve_of(packed)] == pytest.approx([r.loss for r in curve_of(apart)], abs=1e-5)
    assert [r.grad_norm for r in curve_of(packed)] == pytest.approx([r.grad_norm for r in curve_of(apart)], abs=1e-4)
    assert samples_by_step(packed) == samples_by_step(apart)


def ended(paths: RunPaths) -> str:
    """What ended a training of one rank that must fail for good, without a model."""
    with TrainingRanks(paths, 1, "a") as ranks:
        assert ranks.finish() == [1]
    vitals = read_heartbeat(paths.heartbeat("a", 0))
    assert vitals is not None
    assert vitals.fatal
    assert not paths.model.exists()
    return vitals.first_error or ""


def test_a_loss_that_is_no_number_ends_the_run_for_good(tmp_path: Path) -> None:
    paths = plan_training(tmp_path / "run", learning_rate=1e30, clip_norm=None, max_steps=30)
    assert "lower train.learning_rate" in ended(paths)


def test_weights_that_are_no_numbers_are_not_saved_and_the_last_good_checkpoint_is_kept(tmp_path: Path) -> None:
    """The first step of a warm-up changes nothing, the second all weights; its loss is of the weights before it."""
    paths = plan_training(
        tmp_path / "run", learning_rate=1e40, scheduler="constant_with_warmup", warmup_steps=10, max_steps=2,
        checkpoint_every=1,
    )  # fmt: skip
    said = ended(paths)
    assert "after step 2 model." in said
    assert "are like it" in said
    assert "the last checkpoint is of step 1" in said
    assert Checkpoints(paths, 2).newest().step == 1
    assert merge_train(paths).complete is False


def test_a_validation_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    """Case 45: it was written as null and left out of metrics.json."""
    said = ended(plan_training(tmp_path / "run", learning_rate=1e40, max_steps=1, validation_fraction=0.1))
    assert "the validation loss of step 1 is nan" in said
    assert "there is no checkpoint yet" in said


def test_a_gradient_norm_that_is_no_number_ends_the_run_before_the_update(tmp_path: Path) -> None:
    """Hidden states of 1e25 and a head that takes that back: the loss is a number, the square of a gradient is none."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tiny = ASSETS / "tiny"
    model = AutoModelForCausalLM.from_pretrained(tiny, tie_word_embeddings=False)
    model.model.norm.weight.data *= 1e25
    model.lm_head.weight.data *= 1e-25
    model.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(tiny).save_pretrained(tmp_path / "model")
    paths = plan_training(tmp_path / "run", model=str(tmp_path / "model"), init="pretrained", max_steps=2)
    assert "the gradient norm of step 1 is inf" in ended(paths)
