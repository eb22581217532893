"""torch.compile for the networks of a training, and measurements that go around it."""

from __future__ import annotations

import contextlib

import torch
from torch import nn


def compile_backbones(method: nn.Module) -> None:
    """Compiles the forward passes of `backbone` and, where there are such, `target_backbone` and
    `second_backbone`, in place: the names of their parameters stay.

    Each shape of the views has a graph of its own. The rest of a method (heads, losses, hooks) is small and
    stays as it is.
    """
    for name in ("backbone", "target_backbone", "second_backbone"):
        network = getattr(method, name, None)
        if isinstance(network, nn.Module):
            network.compile(dynamic=False)


def uncompiled(*, compiled: bool) -> contextlib.AbstractContextManager[object]:
    """Runs compiled modules as they were written, for measurements between steps: their batches of other
    sizes and their evaluation mode would be compiled anew. Nothing where the training is not `compiled`."""
    return torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext()
