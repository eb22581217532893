"""The methods by name, one short file each."""

from __future__ import annotations

from siamtransfer.methods.method import Method, ParameterGroup, StepOutput
from siamtransfer.methods.simsiam import SimSiam, SimSiamConfig

__all__ = ["Method", "ParameterGroup", "SimSiam", "SimSiamConfig", "StepOutput"]
