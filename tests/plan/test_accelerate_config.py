"""What `accelerate config` writes: precision and FSDP are used, topology is replaced, and the plan says both."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hpcjobs.config import FsdpConfig, TrainConfig
from hpcjobs.config.shape import Shape
from hpcjobs.errors import ConfigError
from hpcjobs.plan.accelerate_config import with_accelerate_config
from hpcjobs.training.fsdp import fsdp_plugin

SHAPE = Shape(2, 4, 4, 1)
FSDP = """
compute_environment: LOCAL_MACHINE
debug: false
distributed_type: FSDP
downcast_bf16: 'no'
fsdp_config:
  fsdp_activation_checkpointing: true
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_cpu_ram_efficient_loading: true
  fsdp_offload_params: false
  fsdp_reshard_after_forward: true
  fsdp_state_dict_type: SHARDED_STATE_DICT
  fsdp_transformer_layer_cls_to_wrap: LlamaDecoderLayer
  fsdp_version: 2
machine_rank: 0
main_training_function: main
mixed_precision: bf16
num_machines: 1
num_processes: 8
rdzv_backend: static
same_network: true
use_cpu: false
"""


def used(tmp_path: Path, text: str, train: TrainConfig | None = None) -> tuple[TrainConfig, str]:
    path = tmp_path / "default_config.yaml"
    path.write_text(text)
    found, notes = with_accelerate_config(train or TrainConfig(), path, SHAPE)
    return found, notes[0]


def test_a_file_of_fsdp(tmp_path: Path) -> None:
    train, note = used(tmp_path, FSDP)
    assert train.mixed_precision == "bf16"
    assert train.fsdp == FsdpConfig(
        enabled=True, activation_checkpointing=True, transformer_cls_names_to_wrap=("LlamaDecoderLayer",)
    )
    assert "mixed_precision bf16" in note
    assert "num_machines 1, num_processes 8, machine_rank 0 replaced by 2 nodes x 4 GPUs = 8 ranks" in note


def test_words_of_the_first_fsdp(tmp_path: Path) -> None:
    old = FSDP.replace("  fsdp_reshard_after_forward: true\n", "  fsdp_sharding_strategy: SHARD_GRAD_OP\n")
    assert used(tmp_path, old)[0].fsdp.reshard_after_forward is False


def test_the_config_stands_over_the_file(tmp_path: Path) -> None:
    train, note = used(tmp_path, "distributed_type: MULTI_GPU\nmixed_precision: fp16\nnum_processes: 4\n")
    assert (train.mixed_precision, train.fsdp.enabled) == ("fp16", False)
    train, note = used(tmp_path, "mixed_precision: fp16\n", TrainConfig(mixed_precision="no"))
    assert train.mixed_precision == "no"
    assert "nothing used; no topology replaced" in note


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("distributed_type: DEEPSPEED\n", "DEEPSPEED is not run by submit train; valid: FSDP, MULTI_CPU"),
        ("mixed_precision: fp8\n", "fp8 is none of no, bf16, fp16"),
        ("- 1\n", "is not what `accelerate config` writes"),
        ("distributed_type: FSDP\nfsdp_config: {fsdp_auto_wrap_policy: BY_MOON}\n", "fsdp_config: .*auto_wrap_policy"),
        ("distributed_type: FSDP\nfsdp_config: {fsdp_sharding_strategy: HYBRID_SHARD}\n", "HYBRID_SHARD is not run by"),
        ("distributed_type: FSDP\nfsdp_config: {fsdp_sharding_strategy: 5}\n", "HYBRID_SHARD_ZERO2 is not run by"),
        ("distributed_type: FSDP\nfsdp_config: {fsdp_sharding_strategy: FULL}\n", "FULL is none of FULL_SHARD, SHARD"),
        ("distributed_type: FSDP\nfsdp_config: {fsdp_offload_params: maybe}\n", "'maybe' is neither true nor false"),
        ("distributed_type: FSDP\nfsdp_config: {fsdp_min_num_params: many}\n", "'many' is no whole number"),
        ("distributed_type: FSDP\nfsdp_config: {fsdp_version: 3}\n", "fsdp_version 3 is none of 1, 2"),
        ("distributed_type: FSDP\nfsdp_config: [1]\n", "is no mapping of settings"),
        ("parallelism_config: {parallelism_config_tp_size: 2}\n", "tp_size 2 is not run by submit train; valid: 1"),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s)default_config.yaml.*{said}"):
        used(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        with_accelerate_config(TrainConfig(), tmp_path / "none.yaml", SHAPE)


FSDP1 = """
distributed_type: FSDP
fsdp_config:
  fsdp_activation_checkpointing: false
  fsdp_auto_wrap_policy: SIZE_BASED_WRAP
  fsdp_backward_prefetch: BACKWARD_PRE
  fsdp_cpu_ram_efficient_loading: true
  fsdp_forward_prefetch: false
  fsdp_min_num_params: 2000
  fsdp_offload_params: true
  fsdp_reshard_after_forward: SHARD_GRAD_OP
  fsdp_state_dict_type: FULL_STATE_DICT
  fsdp_sync_module_states: true
  fsdp_use_orig_params: true
  fsdp_version: 1
mixed_precision: bf16
"""


def test_a_file_of_the_first_fsdp(tmp_path: Path) -> None:
    path = tmp_path / "default_config.yaml"
    path.write_text(FSDP1)
    train, notes = with_accelerate_config(TrainConfig(), path, SHAPE)
    assert train.fsdp == FsdpConfig(
        enabled=True, reshard_after_forward=False, cpu_offload=True, auto_wrap_policy="size_based_wrap",
        min_num_params=2000,
    )  # fmt: skip
    assert notes[1] == (
        f"{path}: not used: fsdp_version 1 (FSDP2 is run), fsdp_backward_prefetch BACKWARD_PRE, "
        "fsdp_cpu_ram_efficient_loading True, fsdp_state_dict_type FULL_STATE_DICT"
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("fsdp_sharding_strategy: FULL_SHARD", {}),
        ("fsdp_sharding_strategy: 2", {"reshard_after_forward": False}),
        ("fsdp_sharding_strategy: SHARD_GRAD_OP, fsdp_reshard_after_forward: FULL_SHARD",
         {"reshard_after_forward": False}),
        ("fsdp_reshard_after_forward: '1'", {}),
        ("fsdp_version: 2, fsdp_reshard_after_forward: false", {"reshard_after_forward": False}),
        ("fsdp_version: '2', fsdp_reshard_after_forward: 'no'", {"reshard_after_forward": False}),
        ("fsdp_version: 2, fsdp_reshard_after_forward: 'True', fsdp_sharding_strategy: SHARD_GRAD_OP", {}),
        ("fsdp_offload_params: 'true', fsdp_activation_checkpointing: 'yes'",
         {"cpu_offload": True, "activation_checkpointing": True}),
        ("fsdp_offload_params: 'False', fsdp_activation_checkpointing: off", {}),
        ("offload_params: true", {"cpu_offload": True}),
        ("fsdp_auto_wrap_policy: transformer_based_wrap, fsdp_min_num_params: 0", {}),
        ("fsdp_auto_wrap_policy: NO_WRAP", {"auto_wrap_policy": "no_wrap"}),
        ("fsdp_auto_wrap_policy: SIZE_BASED_WRAP", {"auto_wrap_policy": "size_based_wrap", "min_num_params": 10**8}),
        ("fsdp_auto_wrap_policy: SIZE_BASED_WRAP, fsdp_min_num_params: 1e6",
         {"auto_wrap_policy": "size_based_wrap", "min_num_params": 10**6}),
        ("fsdp_transformer_layer_cls_to_wrap: 'BertLayer, T5Block'",
         {"transformer_cls_names_to_wrap": ("BertLayer", "T5Block")}),
        ("fsdp_transformer_layer_cls_to_wrap: [BertLayer]", {"transformer_cls_names_to_wrap": ("BertLayer",)}),
        ("fsdp_sharding_strategy: NO_SHARD", {"enabled": False}),
    ],
)  # fmt: skip
def test_accelerates_own_spelling(tmp_path: Path, settings: str, expected: dict[str, Any]) -> None:
    train, _ = used(tmp_path, f"distributed_type: FSDP\nfsdp_config: {{{settings}}}\n")
    assert train.fsdp == FsdpConfig.model_validate({"enabled": True} | expected)


@pytest.mark.parametrize(
    ("text", "precision"),
    [
        ("mixed_precision: no\n", "no"), ("mixed_precision: 'no'\n", "no"), ("mixed_precision: false\n", "no"),
        ("mixed_precision: null\n", "no"), ("mixed_precision: BF16\n", "bf16"), ("fp16: true\n", "fp16"),
        ("distributed_type: no\nmixed_precision: bf16\n", "bf16"), ('{"mixed_precision": "fp16"}', "fp16"),
    ],
)  # fmt: skip
def test_words_of_precision(tmp_path: Path, text: str, precision: str) -> None:
    assert used(tmp_path, text)[0].mixed_precision == precision


def test_torch_compile_is_said_not_to_be_used(tmp_path: Path) -> None:
    path = tmp_path / "default_config.yaml"
    path.write_text("dynamo_config: {dynamo_backend: INDUCTOR}\n")
    assert with_accelerate_config(TrainConfig(), path, SHAPE)[1][1] == f"{path}: not used: dynamo_backend INDUCTOR"


# Answers to `accelerate config`: what is chosen in menus by the beginning of their question, and typed elsewhere.
WITHOUT_GPU: dict[str, Any] = {"RAM efficient": "no", "broadcast": "no"}  # its plugin looks for a GPU otherwise
ANSWERS: list[dict[str, Any]] = [
    {"FSDP version": 1, "resharding": "no", "offload": "yes", "wrap policy": 0, "class names": "A,B"},
    {"FSDP version": 1, "wrap policy": 1, "minimum number": "4000", "activation checkpointing": "yes"},
    {"FSDP version": 1, "wrap policy": 2},
    {"FSDP version": 0, "sharding strategy": 0, "wrap policy": 0, "_no_split": "yes"} | WITHOUT_GPU,
    {"FSDP version": 0, "sharding strategy": 1, "wrap policy": 1, "offload": "yes"} | WITHOUT_GPU,
]


@pytest.mark.model
@pytest.mark.parametrize("answers", ANSWERS)
def test_what_accelerate_config_writes_is_what_accelerate_launch_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any]
) -> None:
    """The real questions of `accelerate config`, and the real plugin of `accelerate launch` as the reference."""
    from accelerate import FullyShardedDataParallelPlugin
    from accelerate.commands.config import cluster
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.commands.menu import BulletMenu
    from accelerate.utils.launch import prepare_multi_gpu_env

    answers = {"type of machine": 4, "FullyShardedDataParallel": "yes", "mixed precision": 2} | answers

    def menu(asked: BulletMenu, default_choice: int = 0) -> int:
        found: Any = (answer for words, answer in answers.items() if words in asked.prompt)
        return int(next(found, default_choice))

    def typed(question: str = "") -> str:
        return str(next((answer for words, answer in answers.items() if words in question), ""))

    monkeypatch.setattr(BulletMenu, "run", menu)
    monkeypatch.setattr("builtins.input", typed)
    path = tmp_path / "default_config.yaml"
    cluster.get_cluster_input().to_yaml_file(str(path))
    if answers["FSDP version"] == 0:  # accelerate 1.15 reads FSDP1's strategy from its earlier name alone
        path.write_text(path.read_text().replace("fsdp_reshard_after_forward", "fsdp_sharding_strategy"))
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(["--config_file", str(path), "prog.py"]))
    for name, value in prepare_multi_gpu_env(args).items():
        if name.startswith(("FSDP_", "ACCELERATE_USE_FSDP")):
            monkeypatch.setenv(name, value)
    theirs = FullyShardedDataParallelPlugin()
    fsdp = with_accelerate_config(TrainConfig(), path, SHAPE)[0].fsdp
    for name in [name for name in os.environ if name.startswith("FSDP_")]:
        monkeypatch.delenv(name)
    ours = fsdp_plugin(TrainConfig(fsdp=fsdp))
    kept = theirs.reshard_after_forward if theirs.fsdp_version == 2 else theirs.sharding_strategy.name == "FULL_SHARD"
    assert (ours.reshard_after_forward, _offloads(ours)) == (kept, _offloads(theirs))
    for name in ("auto_wrap_policy", "min_num_params", "transformer_cls_names_to_wrap", "activation_checkpointing"):
        assert getattr(ours, name) == getattr(theirs, name), name


def _offloads(plugin: Any) -> bool:
    """FSDP1 has a flag, FSDP2 a class of its own."""
    found: bool = getattr(plugin.cpu_offload, "offload_params", type(plugin.cpu_offload).__name__ == "CPUOffloadPolicy")
    return found
