"""Predictors that adapt to the image: several MLPs with gates, attention between channels, gated depth."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from siamtransfer.methods.parts.precision import no_tf32, to_float32


class Residual(nn.Module):
    """p = z + h(z): the predictor learns only the difference between the views (ours)."""

    def __init__(self, mlp: nn.Module):
        super().__init__()
        self.mlp = mlp

    def forward(self, z: Tensor) -> Tensor:
        return z + self.mlp(z)


class Experts(nn.Module):
    """p = Σ_k a_k h_k(z) with gates a = softmax(W z): the predictor adapts to the image (ours, a mixture of
    experts after Jacobs et al. 1991)."""

    def __init__(self, mlps: list[nn.Module], dim: int):
        super().__init__()
        self.experts = nn.ModuleList(mlps)
        self.gate = nn.Linear(dim, len(mlps))

    def gates(self, z: Tensor) -> Tensor:
        """The weight of each expert for each row, [N,K]; each row sums to 1."""
        return self.gate(z).softmax(dim=1)

    def forward(self, z: Tensor) -> Tensor:
        outputs = torch.stack([expert(z) for expert in self.experts], dim=2)  # [N, d, K]
        return (outputs * self.gates(z)[:, None]).sum(dim=2)

    @torch.no_grad()
    def numbers(self, z: Tensor) -> dict[str, Tensor]:
        """`expert_usage`, the entropy of the mean gate, from 0 (one expert has all the weight) to 1 (all have
        equal weight)."""
        mean = self.gates(z).float().mean(dim=0)
        return {"expert_usage": torch.special.entr(mean).sum() / math.log(len(mean))}


class GroupAttention(nn.Module):
    """p = h(z + O A V) with A = softmax(Q Kᵀ / √w): the d channels of z are G groups of w = d / G channels,
    and each group takes from the others what its query finds in their keys (ours, with the attention of
    Vaswani et al., arXiv 1706.03762).

    Q, K and V are linear maps of a group, the same for all groups, each with an offset of its own for every
    group, by which groups differ. O starts at zero, so that the predictor starts as h.
    """

    def __init__(self, mlp: nn.Module, dim: int, groups: int):
        super().__init__()
        self.mlp, self.groups = mlp, groups
        width = dim // groups
        self.maps = nn.Linear(width, 3 * width, bias=False)
        self.offsets = nn.Parameter(torch.randn(groups, 3 * width) / math.sqrt(width))
        self.output = nn.Linear(width, width)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def attention(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """A[N,G,G], whose rows sum to 1, and the values [N,G,w] that it averages."""
        tokens = self.maps(z.unflatten(1, (self.groups, -1))) + self.offsets
        q, k, v = to_float32(tokens).chunk(3, dim=2)
        with no_tf32(q):
            return (q @ k.transpose(1, 2) / math.sqrt(q.shape[2])).softmax(dim=2), v

    def forward(self, z: Tensor) -> Tensor:
        weights, values = self.attention(z)
        with no_tf32(values):
            taken = weights @ values
        return self.mlp(z + self.output(taken).flatten(1))

    @torch.no_grad()
    def numbers(self, z: Tensor) -> dict[str, Tensor]:
        """`attention_spread`, the mean entropy of a group's attention, from 0 (to one group) to 1 (equal to
        all)."""
        weights, _ = self.attention(z)
        return {"attention_spread": torch.special.entr(weights).sum(dim=2).mean() / math.log(self.groups)}


class GatedDepth(nn.Module):
    """p = x_L with x_0 = z and x_l = x_{l-1} + a_l(z) h_l(x_{l-1}): each image chooses its layers by gates
    a(z) = σ(W z + b), from 0 (the block h_l is left out) to 1 (ours, after highway networks, arXiv
    1505.00387, and skipped layers, arXiv 1711.09485). W and b start at zero, where every block counts half.
    """

    def __init__(self, mlps: list[nn.Module], dim: int):
        super().__init__()
        self.blocks = nn.ModuleList(mlps)
        self.gate = nn.Linear(dim, len(mlps))
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def gates(self, z: Tensor) -> Tensor:
        """How much of each block each row takes, [N,L], from 0 to 1."""
        return self.gate(z).sigmoid()

    def forward(self, z: Tensor) -> Tensor:
        gates, x = self.gates(z), z
        for number, block in enumerate(self.blocks):
            x = x + gates[:, number, None] * block(x)
        return x

    @torch.no_grad()
    def numbers(self, z: Tensor) -> dict[str, Tensor]:
        """`depth`, the mean number of blocks that a row takes (0 to L), and `depth_spread`, its standard
        deviation between rows, which is 0 where all images take the same."""
        depths = self.gates(z).float().sum(dim=1)
        return {"depth": depths.mean(), "depth_spread": depths.std(correction=0)}
