"""UniGrad with more than two views: pairs of anchors and targets, each family's own loss, plain and mixed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.golden_methods import TinyBackbone, random_views
from torch import Tensor
from torch.nn import functional as F

from siamtransfer.config import MethodConfig, PretrainConfig
from siamtransfer.methods.parts.multicrop import anchors_and_targets
from siamtransfer.methods.unigrad import UniGrad, UniGradConfig
from siamtransfer.views.config import ViewsConfig

SWAP = torch.tensor([1, 0, 3, 2, 5, 4, 7, 6])
DIM = 6
FAMILIES = ("unigrad", "contrastive", "asymmetric", "barlow-twins", "vicreg")
TARGETS = ("momentum", "stop-gradient", "momentum-positive")


def build(**options: Any) -> UniGrad:
    torch.manual_seed(0)
    method = UniGrad(TinyBackbone(), UniGradConfig(**{"hidden": 10, "dim": DIM, **options})).double()
    if method.config.target != "stop-gradient":  # far from the online network
        for parameter in [*method.target_backbone.parameters(), *method.target_projector.parameters()]:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return method


def crops(*, mixed: bool = False) -> list[Tensor]:
    """Two views of 16 pixels and two of 8; with `mixed` also their blends, and the shares."""
    views = random_views(16, 16, 8, 8)
    if not mixed:
        return views
    share = torch.rand(8, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    blends = [
        torch.lerp(view[SWAP], view, share[:, v, None, None, None].expand_as(view))
        for v, view in enumerate(views)
    ]
    return [*views, *blends, share]


def embedded(method: UniGrad, views: list[Tensor]) -> list[Tensor]:
    return [F.normalize(method.projector(method.backbone(view)), dim=1) for view in views]


def test_every_view_has_a_pair_with_each_global_view_but_itself() -> None:
    assert anchors_and_targets(2) == [(0, 1), (1, 0)]
    assert anchors_and_targets(4) == [(0, 1), (1, 0), (2, 0), (2, 1), (3, 0), (3, 1)]


@pytest.mark.parametrize("target", TARGETS)
def test_two_crops_are_plain_unigrad_to_the_bit(target: str) -> None:
    """Against the published formula with its own order of operations."""
    method, views = build(target=target), crops()[:2]
    loss = method(views).loss
    loss.backward()
    same = build(target=target)
    u1, u2 = u = embedded(same, views)
    t1, t2 = (x.detach() for x in u) if target == "stop-gradient" else (same.target(x) for x in views)
    n1, n2 = (t1, t2) if target != "momentum-positive" else (u1.detach(), u2.detach())
    rows = torch.cat([n1, n2])
    f = rows.T @ rows / 16
    g1, g2 = -t2 + 100.0 * (u1 @ f), -t1 + 100.0 * (u2 @ f)
    expected = (g1.detach() * u1).sum(dim=1).mean() / 2 + (g2.detach() * u2).sum(dim=1).mean() / 2
    expected.backward()
    assert torch.equal(loss, expected)
    for parameter, wanted in zip(method.parameters(), same.parameters(), strict=True):
        assert (parameter.grad is None) == (wanted.grad is None)
        assert parameter.grad is None or torch.equal(parameter.grad, wanted.grad)  # type: ignore[arg-type]


Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The mean loss of anchors u[8,d] against targets t[8,d], with the global views' embeddings [16,d]."""


def unigrad_loss(u: Tensor, t: Tensor, bank: Tensor) -> Tensor:
    f = bank.T @ bank / 16
    return -(u * t).sum(dim=1).mean() + 50 * ((u @ f) * u).sum(dim=1).mean()


def infonce(u: Tensor, t: Tensor, bank: Tensor) -> Tensor:
    """The target is in the bank where it is plain; the loss is linear in it where it is mixed."""
    logits = u @ bank.T / 0.2
    return (logits.logsumexp(dim=1) - (u * t).sum(dim=1) / 0.2).mean()


def directpred(u: Tensor, t: Tensor, bank: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(bank.T @ bank / 16)
    p = u @ (vectors * (values.clamp(min=0) / values.max()).sqrt()) @ vectors.T
    return -((p * t).sum(dim=1) / p.norm(dim=1)).mean()


def barlow_twins(u: Tensor, t: Tensor, bank: Tensor) -> Tensor:
    squares = (u.T @ t / 8 - torch.eye(DIM, dtype=torch.float64)) ** 2
    diagonal = squares.diagonal().sum()
    return diagonal + 50 * (squares.sum() - diagonal)


def vicreg(u: Tensor, t: Tensor, bank: Tensor) -> Tensor:
    covariance = torch.cov(u.T)
    hinge = (1 - (u.var(dim=0) + 1e-4).sqrt()).relu().sum() / 2
    off_diagonal = covariance.square().sum() - covariance.diagonal().square().sum()
    return (u - t).square().sum(dim=1).mean() + off_diagonal / 25 + hinge


LOSSES: dict[str, tuple[dict[str, Any], Loss]] = {
    "unigrad": ({}, unigrad_loss),
    "contrastive": ({}, infonce),
    "asymmetric": ({"epsilon": 0.0}, directpred),
    "barlow-twins": ({}, barlow_twins),
    "vicreg": ({}, vicreg),
}


@pytest.mark.parametrize("mixed", [False, True], ids=["plain", "mixed"])
@pytest.mark.parametrize("negative", FAMILIES)
def test_four_views_train_like_the_family_s_loss_over_all_pairs(negative: str, mixed: bool) -> None:
    """The gradient of every parameter is that of the mean over the six pairs of the family's loss, in which a
    mixed anchor's target is the mixture of the targets of both images."""
    options, loss = LOSSES[negative]
    method, views = build(negative=negative, **options), crops(mixed=mixed)
    method(views).loss.backward()
    same = build(negative=negative, **options)
    u = embedded(same, views[4:8] if mixed else views)
    targets = [same.target(view) for view in views[:2]]
    losses = []
    for anchor in range(4):
        for other in {0, 1} - {anchor}:
            t = targets[other]
            if mixed:
                own = views[8][:, anchor, None]
                t = own * t + (1 - own) * t[SWAP]
            losses.append(loss(u[anchor], t, torch.cat(targets)))
    assert len(losses) == 6
    torch.stack(losses).mean().backward()
    for (name, parameter), wanted in zip(method.named_parameters(), same.parameters(), strict=True):
        if wanted.grad is None:
            assert parameter.grad is None
            continue
        # The root of F's smallest eigenvalues is what DirectPred's clamp at 1e-4 touches.
        torch.testing.assert_close(parameter.grad, wanted.grad, rtol=1e-7, atol=1e-9, msg=name)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("negative", FAMILIES)
def test_local_views_are_anchors_and_no_targets(negative: str, target: str) -> None:
    """A changed local view changes its own embeddings' gradient, and neither F nor those of other views."""

    def gradients(views: list[Tensor]) -> list[Tensor]:
        method = build(negative=negative, target=target)
        with torch.no_grad():
            u = [method.embed(method.projector(method.backbone(view))) for view in views]
            found = method.decompose(u, *method.references(views, u))
        return [gradient.total for gradient in found]

    views = crops()
    before, after = gradients(views), gradients([*views[:3], views[3].flip(0)])
    for (anchor, _), old, new in zip(anchors_and_targets(4), before, after, strict=True):
        assert torch.equal(old, new) == (anchor != 3)


def test_the_projections_of_every_view_come_back_and_the_correlation_is_of_global_views() -> None:
    method, views = build(), crops()
    output = method(views)
    assert [z.shape for z in output.projections] == [(8, DIM)] * 4
    targets = torch.cat([build().target(view) for view in views[:2]])
    torch.testing.assert_close(method.correlation.matrix, targets.T @ targets / 16)


@pytest.mark.parametrize("recipe", ["scenes", "scenes-multicrop", "swav"])
def test_recipes_with_small_crops_are_for_unigrad_too(recipe: str) -> None:
    for mix in (None, "cutmix"):
        views = ViewsConfig(recipe, mix=mix)  # type: ignore[arg-type]
        PretrainConfig(views=views, method=MethodConfig("unigrad")).check()
