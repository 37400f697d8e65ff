"""The config: its keys, its layers, and how they become one frozen `Config`."""

from hpcjobs.config.schema import (
    ClusterConfig,
    Config,
    DataConfig,
    FewShotConfig,
    FsdpConfig,
    LoraConfig,
    Message,
    ModelConfig,
    RunConfig,
    TaskConfig,
    TrainConfig,
)
from hpcjobs.requests import GenerationConfig

__all__ = [
    "ClusterConfig",
    "Config",
    "DataConfig",
    "FewShotConfig",
    "FsdpConfig",
    "GenerationConfig",
    "LoraConfig",
    "Message",
    "ModelConfig",
    "RunConfig",
    "TaskConfig",
    "TrainConfig",
]
