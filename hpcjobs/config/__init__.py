"""The config: keys, layers, and the frozen, validated `Config` made of them."""

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
    WeightsConfig,
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
    "WeightsConfig",
]
