"""What `accelerate config` writes: precision and FSDP are used, topology is replaced, and the plan says both."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcjobs.config import FsdpConfig, TrainConfig
from hpcjobs.config.shape import Shape
from hpcjobs.errors import ConfigError
from hpcjobs.plan.accelerate_config import with_accelerate_config

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
    ],
)
def test_what_cannot_be_used_is_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s)default_config.yaml.*{said}"):
        used(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        with_accelerate_config(TrainConfig(), tmp_path / "none.yaml", SHAPE)
