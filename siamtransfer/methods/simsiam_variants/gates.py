"""Gates per channel, from 0 (closed) to 1 (open): in the projector, and for the gradient of a target."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from siamtransfer.distributed import collectives
from siamtransfer.methods.parts.precision import to_float32

EPSILON = 1e-12
"""Keeps the correlation of a constant channel at 0."""


class ChannelGates(nn.Module):
    """y = a ∘ x with gates a(x) = σ(V relu(U x)), x[N,D]: each image opens the channels that serve it
    (squeeze and excitation, Hu et al., arXiv 1709.01507). V starts at zero, where every gate is one half."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.squeeze = nn.Linear(width, hidden)
        self.excite = nn.Linear(hidden, width)
        nn.init.zeros_(self.excite.weight)
        nn.init.zeros_(self.excite.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.excite(self.squeeze(x).relu()).sigmoid()


@torch.no_grad()
def channel_agreement(first: Tensor, second: Tensor) -> Tensor:
    """max(0, r_c) with the correlation r_c of each channel of first[N,d] and second[N,d], over the rows of
    all ranks: [d], 1 where two views of an image agree, 0 where they tell nothing of each other."""
    a, b = (to_float32(collectives.all_gather(x)) for x in (first, second))
    a, b = a - a.mean(dim=0), b - b.mean(dim=0)
    spread = (a.square().sum(dim=0) * b.square().sum(dim=0)).sqrt()
    return ((a * b).sum(dim=0) / spread.clamp(min=EPSILON)).relu()
