"""The configuration of a pretraining run (pretrain.py), its sections, and the one that a run has saved."""

from siamtransfer.config.pretrain import PretrainConfig
from siamtransfer.config.saved import FREE_ON_RESUME, read_saved_config, refuse_differences
from siamtransfer.config.sections import (
    BackboneConfig,
    CheckpointConfig,
    DataConfig,
    HardwareConfig,
    LogConfig,
    MethodConfig,
    MonitorConfig,
    RunConfig,
)

__all__ = [
    "FREE_ON_RESUME",
    "BackboneConfig",
    "CheckpointConfig",
    "DataConfig",
    "HardwareConfig",
    "LogConfig",
    "MethodConfig",
    "MonitorConfig",
    "PretrainConfig",
    "RunConfig",
    "read_saved_config",
    "refuse_differences",
]
