"""The gradient of every family of Siamese losses in one closed form (Tao et al., Exploring the Equivalence of
Siamese Self-Supervised Learning via A Unified Gradient Framework, arXiv 2112.05141).

With respect to an embedding u1 (a unit vector, or whatever the loss is a function of) whose target is u2,
the gradient of every family has the form

    scale · (positive + balance · negative)

The positive part pulls u1 to u2; the negative part separates the embeddings of different images. The
docstring of each function names the loss whose exact gradient it is, with everything but u1 constant.

Legend: N rows, d (c in VICReg) dimensions, M rows of a bank.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Gradient(NamedTuple):
    """N ∂L/∂u1 for N rows, in parts.

    Attributes:
        positive: [N,d], the pull to the target.
        negative: [N,d], the push away from other images.
        balance: λ, the weight of the negative part; a number or [N,1].
        scale: of both parts; a number or [N,1].
    """

    positive: Tensor
    negative: Tensor
    balance: Tensor | float = 1.0
    scale: Tensor | float = 1.0

    @property
    def total(self) -> Tensor:
        """[N,d]."""
        return self.scale * (self.positive + self.balance * self.negative)


@torch.no_grad()
def contrastive(
    u1: Tensor, u2: Tensor, bank: Tensor, temperature: float, excluded: Tensor | None = None
) -> Gradient:
    """MoCo v3, and SimCLR with constant targets: L = mean -log(exp(u1·u2/τ) / Σ_v exp(u1·v/τ)), v in `bank`.

    `bank` [M,d] holds the u2 of all rows; `excluded` [N] is the row of it that each u1 leaves out, itself, or
    [N,K] are several. For a queue, which does not hold u2, see `with_queue`.
    """
    logits = u1 @ bank.T / temperature
    if excluded is not None:
        logits.scatter_(1, excluded.view(len(u1), -1), -torch.inf)
    return Gradient(-u2, logits.softmax(dim=1) @ bank, scale=1 / temperature)


@torch.no_grad()
def with_queue(u1: Tensor, u2: Tensor, queue: Tensor, temperature: float) -> Gradient:
    """MoCo: the contrastive loss over u2 and the rows of `queue` [M,d]."""
    logits = torch.cat([(u1 * u2).sum(dim=1, keepdim=True), u1 @ queue.T], dim=1) / temperature
    own, others = logits.softmax(dim=1).split([1, len(queue)], dim=1)
    return Gradient(-u2, own * u2 + others @ queue, scale=1 / temperature)


@torch.no_grad()
def nt_xent(u: Tensor, temperature: float) -> Gradient:
    """SimCLR's own loss over u[2N,d], whose rows n and N + n are the views of one image, each with gradient:
    L = mean_i -log(exp(u_i·u_p/τ) / Σ_{k≠i} exp(u_i·u_k/τ)), p being the other view.

    A view is an anchor, and also a positive or negative of other anchors; so weights are averaged over both.
    """
    logits = (u @ u.T / temperature).fill_diagonal_(-torch.inf)
    weights = logits.softmax(dim=1)
    return Gradient(-u.roll(len(u) // 2, dims=0), (weights + weights.T) / 2 @ u, scale=2 / temperature)


@torch.no_grad()
def asymmetric(u1: Tensor, u2: Tensor, predictor: Tensor, quadratic: Tensor | None = None) -> Gradient:
    """BYOL and SimSiam with a linear predictor W[d,d]: L = mean -cos(W u1, u2), u2 of unit length.

    `quadratic` replaces WᵀW, as F + ε² I does in the paper where W = U diag(√s + ε) Uᵀ comes from
    F = U diag(s) Uᵀ: that is WᵀW but for the cross term 2ε√F.
    """
    predicted = u1 @ predictor.T
    positive = -u2 @ predictor
    negative = u1 @ (predictor.T @ predictor if quadratic is None else quadratic)
    balance = -(u1 * positive).sum(dim=1, keepdim=True) / (u1 * negative).sum(dim=1, keepdim=True)
    return Gradient(positive, negative, balance, 1 / predicted.norm(dim=1, keepdim=True))


def asymmetric_through(u1: Tensor, u2: Tensor, predictor: Callable[[Tensor], Tensor]) -> Gradient:
    """The same for any predictor h, u1 of any length: L = mean -cos(h(u1), u2).

    -u2/|h| and cos·ĥ/|h| each go back through h by autograd. With batch norm in h the rows depend on each
    other, so balance and scale cannot be separated from the parts and are 1.
    """
    with torch.enable_grad():
        u1 = u1.detach().requires_grad_()
        predicted = predictor(u1)
    length = predicted.detach().norm(dim=1, keepdim=True)
    direction = predicted.detach() / length
    cosine = (direction * u2).sum(dim=1, keepdim=True)
    (positive,) = torch.autograd.grad(predicted, u1, -u2 / length, retain_graph=True)
    (negative,) = torch.autograd.grad(predicted, u1, cosine * direction / length)
    return Gradient(positive, negative)


@torch.no_grad()
def barlow_twins(u1: Tensor, u2: Tensor, balance: float, bank1: Tensor, bank2: Tensor) -> Gradient:
    """Barlow Twins: L = Σ_i (C_ii - 1)² + λ Σ_{i≠j} C_ij² with C = (1/M) Σ_v v1 v2ᵀ over the whole batch,
    `bank1` and `bank2` [M,d], to which u1 and u2 belong; the published loss has them standardised.

    The positive part is -A u2 with A = I - (1 - λ) diag(C).
    """
    samples = len(bank1)
    diagonal = (bank1 * bank2).mean(dim=0)
    return Gradient(
        positive=-(1 - (1 - balance) * diagonal) * u2,
        negative=u2 @ (bank2.T @ bank1) / samples,
        balance=balance,
        scale=2.0,
    )


@torch.no_grad()
def vicreg(
    u1: Tensor,
    u2: Tensor,
    bank: Tensor,
    covariance: float,
    variance: float,
    *,
    goal: float = 1.0,
    epsilon: float = 1e-4,
) -> Gradient:
    """VICReg: L = (1/M) Σ |u1 - u2|² + (λ1/c) Σ_{i≠j} Cov_ij² + (λ2/c) Σ_i max(0, γ - √(Var_i + ε)) over
    the whole batch `bank` [M,c], to which u1 belongs.

    λ1 is `covariance`, λ2 `variance` and γ `goal`. The code's loss, with weights 25, 25 and 1 of terms that
    are means over dimensions, is 25/c times this one with λ1 = c/25 and λ2 = c/2. The last bracket of the
    gradient, (1/λ) u1 - B ũ1, is in the negative part.
    """
    samples, dim = bank.shape
    centre = bank.mean(dim=0)
    centred, others = u1 - centre, bank - centre
    cov = others.T @ others / (samples - 1)
    balance = balance_of_vicreg(covariance, samples, dim)
    std = (cov.diagonal() + epsilon).sqrt()
    hinge = (std < goal) / std
    b = samples / (dim * balance * (samples - 1)) * (2 * covariance * cov.diagonal() + variance / 2 * hinge)
    bracket = u1 / balance - b * centred
    return Gradient(-u2, centred @ (others.T @ others) / samples + bracket, balance, scale=2.0)


def balance_of_vicreg(covariance: float, samples: int, dim: int) -> float:
    """λ = 2 λ1 M² / (c (M - 1)²) of VICReg's gradient."""
    return 2 * covariance * samples**2 / (dim * (samples - 1) ** 2)


@torch.no_grad()
def unigrad(u1: Tensor, u2: Tensor, correlation: Tensor, balance: float) -> Gradient:
    """UniGrad: L = mean -u1·u2 + (λ/2) u1ᵀ F u1 with the correlation matrix F[d,d] of past embeddings.

    With F of u1's own batch, (1/M) Σ_v v vᵀ, this is also the simplified form of both decorrelating losses.
    """
    return Gradient(-u2, u1 @ correlation, balance)
