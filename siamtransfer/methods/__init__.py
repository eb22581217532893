"""The methods by name, one short file each."""

from __future__ import annotations

from siamtransfer.methods.base import Method, Options, ParameterGroup, StepInfo, StepOutput
from siamtransfer.methods.registry import METHODS, MethodName, section_of
from siamtransfer.methods.simsiam import SimSiam, SimSiamConfig

__all__ = [
    "METHODS",
    "Method",
    "MethodName",
    "Options",
    "ParameterGroup",
    "SimSiam",
    "SimSiamConfig",
    "StepInfo",
    "StepOutput",
    "section_of",
]
