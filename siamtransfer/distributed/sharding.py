"""Weights, gradients and optimizer state in shares of the ranks: torch's FSDP2 (`fully_shard`).

A sharded tensor is torch's DTensor, split over the ranks along its first dimension. The functions below also
take ordinary tensors, for which they do what a process alone needs, to the bit. DTensor takes seconds to
import, so it is imported where something is sharded.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from siamtransfer.distributed import collectives


def shard(model: nn.Module, units: Sequence[nn.Module], device: torch.device) -> None:
    """Shards the parameters of `model`, which is on `device`, over all ranks, in place.

    Each of `units` gathers its parameters for its forward and its backward pass. The parameters outside of
    them stay gathered from the forward pass on to the end of the backward pass. Gradients are averaged over
    ranks. FSDP2 casts nothing, so that autocast decides as without it.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device.type, (collectives.world_size(),))
    policy = MixedPrecisionPolicy(cast_forward_inputs=False)
    for module in [*units, model]:
        fully_shard(module, mesh=mesh, mp_policy=policy)
    # Without this the first module that runs is the root: after a resumption a block, in a kNN check.
    model._get_fsdp_state()._lazy_init()  # type: ignore[operator]


def is_sharded(tensor: Tensor) -> bool:
    """Whether a rank holds its share of `tensor` only."""
    return hasattr(tensor, "to_local")


def local(tensor: Tensor) -> Tensor:
    """This rank's share of `tensor`, in the same memory; an ordinary tensor itself."""
    share: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return share


def norms(tensors: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm of each of `tensors` (all sharded or none), [len(tensors)] on their device."""
    own = torch.stack(torch._foreach_norm([local(tensor) for tensor in tensors]))
    return collectives.all_reduce(own.square()).sqrt() if is_sharded(tensors[0]) else own


def share_like(whole: Tensor, sharded: Tensor) -> Tensor:
    """`whole`, which every rank has, split as `sharded` is; itself where that is an ordinary tensor."""
    if not is_sharded(sharded):
        return whole
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(sharded, DTensor)
    on_device = whole.to(sharded.device)
    return distribute_tensor(on_device, sharded.device_mesh, sharded.placements, src_data_rank=None)


def whole_state(state: Any) -> Any:
    """Nested dicts and lists with every sharded tensor gathered: on rank 0 whole and on the CPU, on other
    ranks without memory (device meta). All ranks must call it. What is not sharded stays as it is.

    One tensor at a time is whole on the device.
    """
    if isinstance(state, dict):
        whole_dict = copy.copy(state)  # keeps the versions of modules that a state_dict carries
        for key, value in state.items():
            whole_dict[key] = whole_state(value)
        return whole_dict
    if isinstance(state, list):
        return [whole_state(value) for value in state]
    if not isinstance(state, Tensor) or not is_sharded(state):
        return state
    whole: Tensor = state.detach().full_tensor()  # type: ignore[attr-defined]
    return whole.cpu() if collectives.rank() == 0 else whole.to("meta")


@contextlib.contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Around passes without gradients, in which ranks may have different numbers of batches: every rank holds
    all parameters of a sharded `model`, and its passes exchange nothing. Nothing where it is not sharded."""
    units: list[Any] = [module for module in model.modules() if hasattr(module, "set_reshard_after_forward")]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.set_reshard_after_forward(unit is not model, recurse=False)
            unit.reshard()


@contextlib.contextmanager
def without_exchange(model: nn.Module) -> Iterator[None]:
    """Around a forward and backward pass whose gradients ranks do not exchange yet, for a model on several
    ranks."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        with model.no_sync():
            yield
        return
    sharded: Any = model
    sharded.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        sharded.set_requires_gradient_sync(True)
