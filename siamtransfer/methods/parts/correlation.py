"""F, the correlation matrix of embeddings in a moving average, and matrix functions of it.

DirectPred (arXiv 2102.06810) computes its predictor from it; in UniGrad (arXiv 2112.05141) it stands for all
negative samples of the past.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from siamtransfer.distributed import collectives


class Correlation(nn.Module):
    """F[d,d] ← ρ F + (1 - ρ) E[z zᵀ], uncentred, over the rows of all ranks; the first batch sets F.

    The matrix is a buffer and zero before the first batch.
    """

    matrix: Tensor

    def __init__(self, dim: int, rho: float):
        super().__init__()
        self.rho = rho
        self.register_buffer("matrix", torch.zeros(dim, dim))

    @torch.no_grad()
    def forward(self, z: Tensor) -> Tensor:
        """Updates F by the rows of z[N,d] and returns it."""
        batch = collectives.all_reduce(z.T @ z) / (len(z) * collectives.world_size())
        rho = self.rho * self.matrix.any().to(self.matrix.dtype)
        return self.matrix.mul_(rho).add_((1 - rho) * batch)


@torch.no_grad()
def spectral(correlation: Tensor, power: float, epsilon: float, *, inside: bool = False) -> Tensor:
    """U diag(p) Uᵀ of the symmetric F = U diag(s) Uᵀ [d,d], with p_j = (s_j / max s)^power + epsilon.

    `inside` adds epsilon before taking the power. Negative eigenvalues count as zero, and results below 1e-4
    (epsilon may be negative) are set to 1e-4, as in DirectPred's code. Computed in the precision of F.
    """
    s, u = torch.linalg.eigh(correlation)
    s = s.clamp(min=0) / s.max()
    p = (s + epsilon).clamp(min=1e-4) ** power if inside else (s**power + epsilon).clamp(min=1e-4)
    return (u * p) @ u.T
