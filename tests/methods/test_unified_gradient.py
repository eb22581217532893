"""Every closed-form gradient against autograd of the loss that it belongs to, in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from siamtransfer.methods.parts import unified_gradient as unified
from siamtransfer.methods.parts.correlation import spectral
from siamtransfer.methods.parts.unified_gradient import Gradient

N, D = 9, 5


def rows(seed: int, count: int = N) -> Tensor:
    return torch.randn(count, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def units(seed: int, count: int = N) -> Tensor:
    return F.normalize(rows(seed, count), dim=1)


def correlation(seed: int) -> Tensor:
    z = units(seed, 40)
    return z.T @ z / 40


def assert_gradient(ours: Gradient, loss: Callable[[Tensor], Tensor], u1: Tensor) -> None:
    """`ours` is N times what autograd says of `loss` at u1; the graph that it came from is gone."""
    u = u1.clone().requires_grad_()
    (theirs,) = torch.autograd.grad(loss(u), u)
    torch.testing.assert_close(ours.total / len(u1), theirs, rtol=1e-10, atol=1e-12)
    assert not ours.total.requires_grad


def test_contrastive_over_a_batch():
    u1, u2 = units(1), units(2)
    ours = unified.contrastive(u1, u2, u2, 0.2)
    assert_gradient(ours, lambda u: F.cross_entropy(u @ u2.T / 0.2, torch.arange(N)), u1)
    torch.testing.assert_close(ours.positive, -u2)


def test_contrastive_over_both_views_without_itself():
    """SimCLR with a constant target: of u1's own rows in the bank each anchor leaves out itself."""
    u1, u2 = units(1), units(2)
    bank = torch.cat([u1, u2])

    def loss(u: Tensor) -> Tensor:
        logits = u @ bank.T / 0.2
        logits = logits.masked_fill(torch.eye(N, 2 * N, dtype=torch.bool), -torch.inf)
        return F.cross_entropy(logits, N + torch.arange(N))

    assert_gradient(unified.contrastive(u1, u2, bank, 0.2, torch.arange(N)), loss, u1)


def test_contrastive_with_a_queue():
    u1, u2, queue = units(1), units(2), units(3, 20)

    def loss(u: Tensor) -> Tensor:
        logits = torch.cat([(u * u2).sum(dim=1, keepdim=True), u @ queue.T], dim=1)
        return F.cross_entropy(logits / 0.07, torch.zeros(N, dtype=torch.int64))

    ours = unified.with_queue(u1, u2, queue, 0.07)
    assert_gradient(ours, loss, u1)
    assert (ours.negative.norm(dim=1) < 1).all()  # a mean of unit vectors


def test_simclr_with_gradient_on_both_sides():
    u = units(1, 2 * N)

    def loss(u: Tensor) -> Tensor:
        logits = (u @ u.T / 0.5).masked_fill(torch.eye(2 * N, dtype=torch.bool), -torch.inf)
        return F.cross_entropy(logits, torch.arange(2 * N).roll(N))

    assert_gradient(unified.nt_xent(u, 0.5), loss, u)


def test_asymmetric_with_any_linear_predictor():
    u1, u2 = units(1), units(2)
    predictor = rows(3, D)
    ours = unified.asymmetric(u1, u2, predictor)
    assert_gradient(ours, lambda u: -F.cosine_similarity(u @ predictor.T, u2).mean(), u1)
    torch.testing.assert_close(ours.positive, -(predictor.T @ u2.T).T)


def test_asymmetric_with_the_root_of_f_has_f_in_its_negative_part():
    """With ε = 0, DirectPred's W is the root of F / max s, and WᵀW is F / max s; with ε it is nearly so."""
    u1, u2, f = units(1), units(2), correlation(3)
    root = spectral(f, 0.5, 0.0)
    largest = torch.linalg.eigvalsh(f).max()
    ours = unified.asymmetric(u1, u2, root, f / largest)
    assert_gradient(ours, lambda u: -F.cosine_similarity(u @ root, u2).mean(), u1)
    shifted = spectral(f, 0.5, 0.3)
    exact = unified.asymmetric(u1, u2, shifted)
    paper = unified.asymmetric(u1, u2, shifted, f / largest + 0.09 * torch.eye(D, dtype=torch.float64))
    torch.testing.assert_close(paper.positive, exact.positive)
    cross = 0.6 * spectral(f, 0.5, 0.0)
    torch.testing.assert_close(exact.negative - paper.negative, u1 @ cross)


def test_asymmetric_through_a_network_with_batch_norm():
    torch.manual_seed(0)
    predictor = nn.Sequential(nn.Linear(D, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, D)).double()
    u1, u2 = rows(1), units(2)
    ours = unified.asymmetric_through(u1, u2, predictor)
    assert_gradient(ours, lambda u: -F.cosine_similarity(predictor(u), u2).mean(), u1)
    assert all(parameter.grad is None for parameter in predictor.parameters())


def test_asymmetric_through_a_linear_predictor_has_the_closed_forms_parts():
    u1, u2, predictor = units(1), units(2), rows(3, D)
    closed = unified.asymmetric(u1, u2, predictor)
    through = unified.asymmetric_through(u1, u2, lambda u: u @ predictor.T)
    torch.testing.assert_close(through.positive, closed.scale * closed.positive)
    torch.testing.assert_close(through.negative, closed.scale * closed.balance * closed.negative)


@pytest.mark.parametrize("balance", [0.0051, 1.0, 50.0])
def test_barlow_twins(balance):
    def standardised(z: Tensor) -> Tensor:
        return (z - z.mean(dim=0)) / z.std(dim=0, correction=0)

    u1, u2 = standardised(rows(1)), standardised(rows(2))

    def loss(u: Tensor) -> Tensor:
        c = u.T @ u2 / N
        squares = (c - torch.eye(D, dtype=torch.float64)) ** 2
        return squares.diagonal().sum() + balance * (squares.sum() - squares.diagonal().sum())

    ours = unified.barlow_twins(u1, u2, balance, u1, u2)
    assert_gradient(ours, loss, u1)
    if balance == 1:  # A = I: the simplified form is exact
        torch.testing.assert_close(ours.positive, -u2)


def vicreg_loss(u1: Tensor, u2: Tensor, covariance: float, variance: float) -> Tensor:
    off_diagonal = torch.cov(u1.T) * (1 - torch.eye(D, dtype=torch.float64))
    hinge = (1 - (u1.var(dim=0) + 1e-4).sqrt()).relu()
    distance = (u1 - u2).square().sum(dim=1).mean()
    return distance + covariance / D * off_diagonal.square().sum() + variance / D * hinge.sum()


@pytest.mark.parametrize(("covariance", "variance"), [(0.2, 2.5), (3.0, 0.0), (1.0, 7.0)])
def test_vicreg(covariance, variance):
    u1, u2 = rows(1) * torch.linspace(0.3, 2, D, dtype=torch.float64), rows(2)
    std = u1.std(dim=0)
    assert std.min() < 1 < std.max()  # the hinge is on in some dimensions and off in others
    ours = unified.vicreg(u1, u2, u1, covariance, variance)
    assert_gradient(ours, lambda u: vicreg_loss(u, u2, covariance, variance), u1)


def test_vicreg_of_the_published_weights():
    """25 · mean distance + 25 · ½ mean hinge + 1 · mean off-diagonal is 25/c times the paper's form."""
    u1, u2 = rows(1), rows(2)

    def loss(u: Tensor) -> Tensor:
        off_diagonal = torch.cov(u.T) * (1 - torch.eye(D, dtype=torch.float64))
        hinge = (1 - (u.var(dim=0) + 1e-4).sqrt()).relu()
        return 25 * F.mse_loss(u, u2) + 25 * hinge.mean() / 2 + off_diagonal.square().sum() / D

    ours = unified.vicreg(u1, u2, u1, D / 25, D / 2)
    assert_gradient(ours._replace(scale=ours.scale * 25 / D), loss, u1)


def test_unigrad():
    u1, u2, f = units(1), units(2), correlation(3)

    def loss(u: Tensor) -> Tensor:
        return (-(u * u2).sum(dim=1) + 100 / 2 * ((u @ f) * u).sum(dim=1)).mean()

    assert_gradient(unified.unigrad(u1, u2, f, 100.0), loss, u1)


def test_unigrad_with_an_isotropic_f_pushes_along_the_radius_alone():
    u1, u2 = units(1), units(2)
    ours = unified.unigrad(u1, u2, torch.eye(D, dtype=torch.float64) / D, 100.0)
    torch.testing.assert_close(ours.negative, u1 / D)


def test_simplified_forms_are_unigrads_with_the_f_of_the_batch():
    """Barlow Twins with A = I and equal views, and VICReg without centring and bracket (table 1)."""
    u1, u2 = units(1), units(2)
    batch = u1.T @ u1 / N
    simplified = unified.unigrad(u1, u2, batch, 50.0)
    twins = unified.barlow_twins(u1, u1, 50.0, u1, u1)
    torch.testing.assert_close(twins.negative, simplified.negative)


def test_a_batch_may_be_larger_than_the_rows():
    """On several ranks a rank has some of the rows, and the banks have all of them."""
    u1, u2 = rows(1), rows(2)
    few = slice(2, 5)
    for whole, part in (
        (unified.vicreg(u1, u2, u1, 1.0, 2.0), unified.vicreg(u1[few], u2[few], u1, 1.0, 2.0)),
        (
            unified.barlow_twins(u1, u2, 5.0, u1, u2),
            unified.barlow_twins(u1[few], u2[few], 5.0, u1, u2),
        ),
    ):
        torch.testing.assert_close(part.total, whole.total[few])
