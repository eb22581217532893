"""UniGrad's families of gradients: each against its family's own loss, their switches, and two ranks against
one."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.golden_methods import ALONE, Outcome, assert_same_outcome, two_steps
from support.small_runs import on_ranks
from support.small_unigrad import small, units, views
from torch import Tensor
from torch.nn import functional as F

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.methods.parts.unified_gradient import unigrad


def test_the_loss_has_the_wanted_gradient_with_respect_to_embeddings():
    method = small()
    u1, u2 = units(1).requires_grad_(), units(2).requires_grad_()
    targets = units(3), units(4)
    g1, g2 = method.gradients((u1, u2), targets, targets)
    ((g1 * u1).sum(dim=1).mean() / 2 + (g2 * u2).sum(dim=1).mean() / 2).backward()
    f = torch.cat(targets).T @ torch.cat(targets) / 16
    torch.testing.assert_close(u1.grad, (-targets[1] + 100 * u1.detach() @ f) / 16)
    torch.testing.assert_close(u2.grad, (-targets[0] + 100 * u2.detach() @ f) / 16)


def simclr_with_constant_targets(z: list[Tensor]) -> Tensor:
    u = [F.normalize(x, dim=1) for x in z]
    loss = torch.zeros((), dtype=torch.float64)
    for view in (0, 1):
        bank = torch.cat([u[view], u[1 - view]]).detach()
        logits = (u[view] @ bank.T / 0.2).masked_fill(torch.eye(8, 16, dtype=torch.bool), -torch.inf)
        loss = loss + F.cross_entropy(logits, 8 + torch.arange(8)) / 2
    return loss


def barlow_twins_with_constant_targets(z: list[Tensor]) -> Tensor:
    loss = torch.zeros((), dtype=torch.float64)
    for view in (0, 1):
        squares = (z[view].T @ z[1 - view].detach() / 8 - torch.eye(6, dtype=torch.float64)) ** 2
        diagonal = squares.diagonal().sum()
        loss = loss + (diagonal + 0.0051 * (squares.sum() - diagonal)) / 2
    return loss


def vicreg_with_constant_targets(z: list[Tensor]) -> Tensor:
    loss = torch.zeros((), dtype=torch.float64)
    for view in (0, 1):
        off_diagonal = torch.cov(z[view].T) * (1 - torch.eye(6, dtype=torch.float64))
        hinge = (1 - (z[view].var(dim=0) + 1e-4).sqrt()).relu().mean() / 2
        invariance = F.mse_loss(z[view], z[1 - view].detach())
        loss = loss + (25 * invariance + 25 * hinge + off_diagonal.square().sum() / 6) / 2
    return loss * 6 / 25


def directpred_with_constant_targets(z: list[Tensor]) -> Tensor:
    """With ε = 0 the paper's form is exact."""
    u = [F.normalize(x, dim=1) for x in z]
    f = torch.cat(u).detach().T @ torch.cat(u).detach() / 16
    values, vectors = torch.linalg.eigh(f)
    root = (vectors * (values.clamp(min=0) / values.max()).sqrt()) @ vectors.T
    return -sum(F.cosine_similarity(u[v] @ root, u[1 - v].detach()).mean() / 2 for v in (0, 1))


LOSSES: dict[str, tuple[dict[str, Any], Callable[[list[Tensor]], Tensor]]] = {
    "contrastive": ({}, simclr_with_constant_targets),
    "asymmetric": ({"epsilon": 0.0}, directpred_with_constant_targets),
    "barlow-twins": ({"normalise": "batch", "balance": 0.0051}, barlow_twins_with_constant_targets),
    "vicreg": ({"normalise": "none"}, vicreg_with_constant_targets),
}


@pytest.mark.parametrize("negative", LOSSES)
def test_with_stop_gradient_a_family_trains_like_its_own_loss(negative):
    """Every parameter's gradient is that of the family's published loss with constant targets."""
    settings, loss = LOSSES[negative]
    method = small(negative=negative, target="stop-gradient", **settings)
    assert not any("target" in name for name in method.state_dict())
    method(views()).loss.backward()
    ours = {name: p.grad.clone() for name, p in method.named_parameters()}
    method.zero_grad()
    loss([method.projector(method.backbone(x)) for x in views()]).backward()
    for name, parameter in method.named_parameters():
        # The root of F's smallest eigenvalues is what DirectPred's clamp at 1e-4 touches.
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-7, atol=1e-9)


def parts(**settings: Any) -> tuple[Tensor, Tensor]:
    """View 1's gradient with constant unit vectors as online, target and negative embeddings."""
    online, targets = (units(1), units(2)), (units(3), units(4))
    negatives = targets if settings.get("target", "momentum") == "momentum" else online
    return small(**settings).gradients(online, targets, negatives)


def test_a_momentum_encoder_in_the_positive_part_alone():
    got, _ = parts(target="momentum-positive")
    u = torch.cat([units(1), units(2)])
    expected = unigrad(units(1), units(4), u.T @ u / 16, 100.0)
    torch.testing.assert_close(got, expected.total)


@pytest.mark.parametrize("negative", ["contrastive", "asymmetric", "barlow-twins", "vicreg"])
def test_every_family_takes_its_positive_part_from_the_momentum_encoder(negative):
    """What changes when only the targets of the positive part change is the positive part."""
    online, targets = (units(1), units(2)), (units(3), units(4))
    method = small(negative=negative, target="momentum-positive")
    form = method.form(online, online, [None, None])
    negative_part, pull = form(0, online[1], 1), form(0, targets[1], 1)
    expected = negative_part._replace(positive=pull.positive).total
    ours, _ = small(negative=negative, target="momentum-positive").gradients(online, targets, online)
    torch.testing.assert_close(ours, expected)
    assert (ours - negative_part.total).abs().max() > 1e-3


@pytest.mark.parametrize("negative", ["unigrad", "contrastive", "asymmetric", "barlow-twins", "vicreg"])
def test_balance_weighs_the_negative_part_alone(negative):
    online, targets = (units(1), units(2)), (units(3), units(4))
    switches = {"drop_bracket": True} if negative == "vicreg" else {}
    if negative in ("asymmetric", "barlow-twins"):
        switches = {"plain_positive": True}
    one, two, three = (
        small(negative=negative, balance=balance, **switches).gradients(online, targets, targets)[0]
        for balance in (1.0, 2.0, 3.0)
    )
    torch.testing.assert_close(three - two, two - one)
    assert (two - one).abs().max() > 1e-3
    pull = 2 * one - two  # at balance 0
    torch.testing.assert_close(F.normalize(pull, dim=1), -targets[1])


def test_the_plain_positive_part_replaces_predictor_and_matrix():
    for negative in ("asymmetric", "barlow-twins"):
        with_matrix, _ = parts(negative=negative)
        plain, _ = parts(negative=negative, plain_positive=True)
        assert (with_matrix - plain).abs().max() > 1e-2


def test_vicreg_without_bracket_is_unigrad_with_the_f_of_the_batch():
    got, _ = parts(negative="vicreg", balance=50.0, drop_bracket=True)
    u1 = units(1)
    torch.testing.assert_close(got, 2 * unigrad(u1, units(4), u1.T @ u1 / 8, 50.0).total)
    assert (got - parts(negative="vicreg", balance=50.0)[0]).abs().max() > 1e-2


VARIANTS = list(
    itertools.product(
        ["unigrad", "contrastive", "asymmetric", "barlow-twins", "vicreg"],
        ["momentum", "stop-gradient", "momentum-positive"],
    )
)


def run_each(runtime: Runtime) -> list[Outcome]:
    return [
        two_steps(small(negative=negative, target=target), views(), runtime) for negative, target in VARIANTS
    ]


def test_two_ranks_are_one_in_every_variant():
    alone = run_each(ALONE)
    for outcomes in on_ranks(run_each):
        for variant, outcome, expected in zip(VARIANTS, outcomes, alone, strict=True):
            assert_same_outcome(outcome, expected, str(variant))
