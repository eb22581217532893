"""A network that takes given tensors as its own, without memory for random weights that nobody reads."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.backbone import Backbone


def build_filled(architecture: Architecture, state: Mapping[str, Tensor]) -> Backbone:
    """The network with these tensors as its parameters and buffers, in eval mode. The random state of
    the caller does not change.

    Parameters are built without memory (on the device meta). Buffers are computed as always, because timm's
    networks keep some that no state has: positions of windows, masks, frequencies. The few networks whose
    buffers need their parameters are built as always and get a copy of the tensors.
    """
    with torch.random.fork_rng(devices=[]):
        network = _build_without_memory(architecture)
        if network is None:
            network = architecture.build()
            network.load_state_dict(dict(state), strict=True)
        else:
            network.load_state_dict(dict(state), strict=True, assign=True)
    return network.eval()


def _build_without_memory(architecture: Architecture) -> Backbone | None:
    """The network with parameters on the device meta; None where a buffer takes its device or its numbers
    from a parameter (timm's Swin v2)."""
    try:
        with _parameters_without_memory():
            network = architecture.build()
    except RuntimeError:  # a tensor on the device meta was copied from
        return None
    return None if any(buffer.is_meta for buffer in network.buffers()) else network


@contextmanager
def _parameters_without_memory() -> Iterator[None]:
    """Parameters that this thread registers in a module go to the device meta; what initialises them then
    does nothing. One that stands in two modules stays one."""
    thread = threading.get_ident()

    def to_meta(_: nn.Module, __: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or parameter.is_meta or threading.get_ident() != thread:
            return None
        return nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)

    typed: Any = to_meta  # torch's annotation leaves out that the hook may return a parameter
    hook = register_module_parameter_registration_hook(typed)
    try:
        yield
    finally:
        hook.remove()
