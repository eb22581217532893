"""Device memory of one training step, counted on the CPU: no GPU is needed.

Counted are parameters, buffers, gradients, the optimizer's state, the buckets of DistributedDataParallel, the
views, and all tensors that autograd saves for the backward pass. The saved tensors are counted in two forward
passes of few images, in bfloat16, and extrapolated to a rank's share, for they grow with the images. Not
counted are workspaces of cuDNN, what the allocator loses in fragments, and short-lived tensors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from siamtransfer.config import PretrainConfig
from siamtransfer.methods.base import Method, StepInfo
from siamtransfer.pretraining.build import build_method
from siamtransfer.pretraining.start import configured_network
from siamtransfer.training.recompute import recompute_blocks

FEW, MORE = 2, 4  # images of the two passes


@dataclass
class DeviceMemory:
    """GiB by kind."""

    state: float
    views: float
    activations: float

    @property
    def total(self) -> float:
        """All kinds together."""
        return self.state + self.views + self.activations


def count_device_memory(config: PretrainConfig, share: int, images: int) -> DeviceMemory:
    """The memory of a step of `config` on one GPU with `share` images, of a set of `images`, in bfloat16."""
    torch.manual_seed(0)
    method = build_method(config, configured_network(config.backbone))
    method.prepare(images, None)
    method.to(memory_format=torch.channels_last)
    if config.hardware.activation_checkpointing:
        recompute_blocks(method.backbone)
    method.before_forward(StepInfo(1, 100, 10))
    sides = [view.size for view in config.views.build().views]
    few, more = (saved_bytes(method, sides, count) for count in (FEW, MORE))
    activations = few + (more - few) / (MORE - FEW) * (share - FEW)

    trained = sum(_bytes(p) for p in method.parameters() if p.requires_grad)
    held = sum(map(_bytes, [*method.parameters(), *method.buffers()]))
    moments = 2 if config.optim.name == "adamw" else 1
    state = held + trained * (2 + moments)  # gradients, their buckets, and the optimizer's moments
    views = share * sum(4 * 3 * side * side for side in sides)
    return DeviceMemory(state / 2**30, views / 2**30, activations / 2**30)


def saved_bytes(method: Method, sides: list[int], count: int) -> int:
    """Bytes that autograd keeps of a forward pass of `count` images, besides the weights and the views."""
    views = [
        torch.randn(count, 3, side, side).contiguous(memory_format=torch.channels_last) for side in sides
    ]
    known = {
        tensor.untyped_storage().data_ptr() for tensor in [*method.parameters(), *method.buffers(), *views]
    }
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()  # the graph keeps it, so its address stays its own
        return tensor

    index = [torch.arange(count)] if method.uses_index else []
    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16),
    ):
        output = method(views, *index)
    del output
    return sum(size for address, size in saved.items() if address not in known)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
