"""The methods by name, one file each. Importing this package does not import torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from siamtransfer.methods.registry import METHODS, current_names, saved_options, section_of

if TYPE_CHECKING:
    from siamtransfer.methods.base import Method, Options, ParameterGroup, StepInfo, StepOutput
    from siamtransfer.methods.simsiam import SimSiam, SimSiamConfig

__all__ = [
    "METHODS",
    "Method",
    "Options",
    "ParameterGroup",
    "SimSiam",
    "SimSiamConfig",
    "StepInfo",
    "StepOutput",
    "current_names",
    "saved_options",
    "section_of",
]

_MODULES = {
    "base": ("Method", "Options", "ParameterGroup", "StepInfo", "StepOutput"),
    "simsiam": ("SimSiam", "SimSiamConfig"),
}
_LAZY = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
