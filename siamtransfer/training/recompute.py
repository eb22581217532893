"""Activation checkpointing: the backward pass recomputes a block instead of reading what it kept.

A network keeps the inputs of its blocks only (Chen et al., Training Deep Nets with Sublinear Memory Cost,
arXiv 1604.06174). The recomputation draws the random numbers of the first computation again. It changes no
running statistics of batch norm, and our synchronised batch norm takes the moments that the ranks exchanged
in the first computation.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint, noop_context_fn

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.blocks import blocks_of
from siamtransfer.distributed.batchnorm import Exchanges
from siamtransfer.utils.errors import UserError

Contexts = tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]


def recompute_blocks(backbone: Backbone) -> None:
    """Makes the backward pass recompute every block of `backbone`, in place; the names of parameters stay.

    Passes without gradients, as evaluation makes them, run as before.

    Raises:
        UserError: the network has no blocks that are known.
    """
    blocks = blocks_of(backbone)
    if not blocks:
        raise UserError(
            f"hardware.activation_checkpointing does not know the blocks of {backbone.name}: leave it out, "
            "or take a ViT or a ResNet"
        )
    for block in blocks:
        block.forward = functools.partial(_recomputed, block.forward)


def _recomputed(forward: Callable[..., Tensor], *inputs: Any, **options: Any) -> Tensor:
    """`forward`, the bound method of a block, with its inputs kept in place of its activations."""
    if not torch.is_grad_enabled():
        return forward(*inputs, **options)
    block: nn.Module = forward.__self__  # type: ignore[attr-defined]
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    contexts = functools.partial(_contexts, norms) if norms else noop_context_fn
    result: Tensor = checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts, **options)
    return result


def _contexts(norms: Sequence[_BatchNorm]) -> Contexts:
    """What is around the first computation of a block and around the second one."""
    exchanges = Exchanges()
    return exchanges.recording(), _Second(norms, exchanges)


class _Second(contextlib.AbstractContextManager[None]):
    """Around a recomputation. It can be entered again, where a graph is kept for a second backward pass."""

    def __init__(self, norms: Sequence[_BatchNorm], exchanges: Exchanges):
        self.norms, self.exchanges = norms, exchanges
        self._entered = contextlib.ExitStack()

    def __enter__(self) -> None:
        self._entered.enter_context(_other_statistics(self.norms))
        self._entered.enter_context(self.exchanges.replaying())

    def __exit__(self, *_: object) -> None:
        self._entered.close()


@contextlib.contextmanager
def _other_statistics(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Lets batch norms move copies of their running statistics. The copies have the shapes and types that
    autograd saw in the first computation."""
    before = [dict(norm._buffers) for norm in norms]
    for norm in norms:
        for name, buffer in norm._buffers.items():
            norm._buffers[name] = None if buffer is None else buffer.clone()
    try:
        yield
    finally:
        for norm, buffers in zip(norms, before, strict=True):
            norm._buffers.update(buffers)
