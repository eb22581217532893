"""Losses of mixed views: hand cases of every method that takes them, λ = 1, pairs, ranks, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.golden_methods import (
    ALONE,
    Outcome,
    TinyBackbone,
    assert_same_outcome,
    random_views,
    two_steps,
)
from support.small_runs import on_ranks
from torch import Tensor
from torch.nn import functional as F

from siamtransfer.config import MethodConfig, PretrainConfig
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.methods import METHODS, Method
from siamtransfer.methods.parts.mixing import by_role, mixed_targets
from siamtransfer.methods.unigrad import UniGrad
from siamtransfer.utils.errors import UserError
from siamtransfer.views.config import ViewsConfig

OPTIONS: dict[str, dict[str, Any]] = {
    "simsiam": {"dim": 6},
    "simclr": {"dim": 6},
    "moco": {"dim": 6, "queue": 24},
    "moco-v3": {"dim": 6, "hidden": 10},
    "byol": {"dim": 6, "hidden": 10},
    "unigrad": {"dim": 6, "hidden": 10},
}
TAKERS = tuple(OPTIONS)
SWAP = torch.tensor([1, 0, 3, 2, 5, 4, 7, 6])


def build(name: str, **options: Any) -> Method:
    torch.manual_seed(0)
    method = METHODS[name](TinyBackbone(), METHODS[name].Config(**(OPTIONS[name] | options))).double()
    if name == "moco":
        method.get_buffer("queue").copy_(F.normalize(torch.randn(24, 6, dtype=torch.float64), dim=1))
    for target in ("target_backbone", "target_projector"):  # far from the online network
        if hasattr(method, target):
            for parameter in method.get_submodule(target).parameters():
                parameter.data.add_(0.1 * torch.randn_like(parameter))
    return method


def plain() -> list[Tensor]:
    return random_views(16, 16)


def shares() -> Tensor:
    return torch.rand(8, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def mixed(share: Tensor | None = None) -> list[Tensor]:
    """Two plain views, two views blended with those of the partners, and the shares."""
    views, share = plain(), shares() if share is None else share
    blends = [
        share[:, v, None, None, None] * view + (1 - share[:, v, None, None, None]) * view[SWAP]
        for v, view in enumerate(views)
    ]
    return [*views, *blends, share]


def outcome(method: Method, views: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    loss = method(views).loss
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in method.named_parameters() if p.grad is not None}


def cosines(p: Tensor, t: Tensor) -> Tensor:
    return F.normalize(p, dim=1) @ F.normalize(t, dim=1).T


def target_of(method: Any, x: Tensor) -> Tensor:
    return method.target_projector(method.target_backbone(x)).detach()


def simsiam(method: Any, x: list[Tensor], m: list[Tensor], own: Tensor) -> Tensor:
    """Minus the cosines with both images' projections, by share."""
    total = torch.zeros((), dtype=torch.float64)
    for v in (0, 1):
        table = cosines(method.predictor(method.projector(method.backbone(m[v]))), target(method, x[1 - v]))
        for row in range(8):
            similarity = own[row, v] * table[row, row] + (1 - own[row, v]) * table[row, SWAP[row]]
            total = total - similarity / 16
    return total


def target(method: Any, x: Tensor) -> Tensor:
    return method.projector(method.backbone(x)).detach()


def byol(method: Any, x: list[Tensor], m: list[Tensor], own: Tensor) -> Tensor:
    """Squared distances of unit vectors to both images' targets, by share."""
    total = torch.zeros((), dtype=torch.float64)
    for v in (0, 1):
        p = F.normalize(method.predictor(method.projector(method.backbone(m[v]))), dim=1)
        t = F.normalize(target_of(method, x[1 - v]), dim=1)
        for row in range(8):
            to_own, to_other = ((p[row] - t[key]).square().sum() for key in (row, SWAP[row]))
            total = total + (own[row, v] * to_own + (1 - own[row, v]) * to_other) / 8
    return total


def moco(method: Any, x: list[Tensor], m: list[Tensor], own: Tensor) -> Tensor:
    """Of view 1 alone: the query is mixed, its two keys are the plain view 2 of both images."""
    q = F.normalize(method.projector(method.backbone(m[0])), dim=1)
    k = F.normalize(target_of(method, x[1]), dim=1)
    total = torch.zeros((), dtype=torch.float64)
    for row in range(8):
        for key, weight in ((row, own[row, 0]), (SWAP[row], 1 - own[row, 0])):
            candidates = torch.cat([k[key][None], method.queue]) @ q[row] / 0.2
            total = total - weight * candidates.log_softmax(dim=0)[0] / 8
    return total


def moco_v3(method: Any, x: list[Tensor], m: list[Tensor], own: Tensor) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for v in (0, 1):
        p = method.predictor(method.projector(method.backbone(m[v])))
        chances = cosines(p, target_of(method, x[1 - v])).log_softmax(dim=1)
        for row in range(8):
            likely = own[row, v] * chances[row, row] + (1 - own[row, v]) * chances[row, SWAP[row]]
            total = total - 2 * likely / 8
    return total


def simclr(method: Any, x: list[Tensor], m: list[Tensor], own: Tensor, *, temperature: float = 0.1) -> Tensor:
    """The plain views of both images that the anchor holds are no candidates."""
    z = [method.projector(method.backbone(view)) for view in x]
    if isinstance(method, UniGrad):  # whose targets are constants
        z = [projection.detach() for projection in z]
    total = torch.zeros((), dtype=torch.float64)
    for v in (0, 1):
        anchors = method.projector(method.backbone(m[v]))
        partner, same = cosines(anchors, z[1 - v]) / temperature, cosines(anchors, z[v]) / temperature
        for row in range(8):
            others = [same[row, n] for n in range(8) if n not in (row, SWAP[row])]
            chances = torch.cat([partner[row], torch.stack(others)]).log_softmax(dim=0)
            likely = own[row, v] * chances[row] + (1 - own[row, v]) * chances[SWAP[row]]
            total = total - likely / 16
    return total


def unigrad(method: Any, x: list[Tensor], m: list[Tensor], own: Tensor) -> Tensor:
    """g = -(λ u'a + (1 - λ) u'b) + 100 F u, F of the plain views' momentum embeddings."""
    t = [F.normalize(target_of(method, view), dim=1) for view in x]
    f = (t[0].T @ t[0] + t[1].T @ t[1]) / 16
    total = torch.zeros((), dtype=torch.float64)
    for v in (0, 1):
        u = F.normalize(method.projector(method.backbone(m[v])), dim=1)
        for row in range(8):
            pull = own[row, v] * t[1 - v][row] + (1 - own[row, v]) * t[1 - v][SWAP[row]]
            total = total + ((-pull + 100 * f @ u[row]).detach() @ u[row]) / 16
    return total


HAND: dict[str, Callable[[Any, list[Tensor], list[Tensor], Tensor], Tensor]] = {
    "simsiam": simsiam,
    "simclr": simclr,
    "moco": moco,
    "moco-v3": moco_v3,
    "byol": byol,
    "unigrad": unigrad,
}


@pytest.mark.parametrize("name", TAKERS)
def test_a_mixed_view_s_loss_and_gradients_are_the_mixture_by_area(name: str) -> None:
    loss, gradients = outcome(build(name), mixed())
    method, views = build(name), mixed()
    expected = HAND[name](method, views[:2], views[2:4], views[4])
    expected.backward()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-10, atol=1e-12)
    found = dict(method.named_parameters())
    assert gradients
    for key, gradient in gradients.items():
        torch.testing.assert_close(gradient, found[key].grad, rtol=1e-8, atol=1e-11, msg=key)


def test_a_mixed_anchor_of_unigrad_s_contrastive_family_leaves_out_both_views_that_it_holds() -> None:
    options = {"negative": "contrastive", "target": "stop-gradient"}
    _, gradients = outcome(build("unigrad", **options), mixed())
    method, views = build("unigrad", **options), mixed()
    simclr(method, views[:2], views[2:4], views[4], temperature=0.2).backward()
    for name, parameter in method.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-8, atol=1e-11, msg=name)


@pytest.mark.parametrize("name", TAKERS)
def test_a_share_of_one_is_the_plain_loss(name: str) -> None:
    ones = torch.ones(8, 2, dtype=torch.float32)
    loss, gradients = outcome(build(name), mixed(ones))
    expected, plain_gradients = outcome(build(name), plain())
    exact = name in ("unigrad", "byol", "simsiam")  # the others sum rows in another order
    assert gradients.keys() == plain_gradients.keys()
    for found, wanted in zip([loss, *gradients.values()], [expected, *plain_gradients.values()], strict=True):
        torch.testing.assert_close(found, wanted, rtol=0 if exact else 1e-9, atol=0 if exact else 1e-12)
    changed, _ = outcome(build(name), mixed())
    assert abs(changed - expected) > 1e-4


@pytest.mark.parametrize("target", ["momentum", "stop-gradient", "momentum-positive"])
@pytest.mark.parametrize("negative", ["unigrad", "contrastive", "asymmetric", "barlow-twins", "vicreg"])
def test_a_share_of_one_is_every_family_s_plain_gradient_to_the_bit(negative: str, target: str) -> None:
    ones = torch.ones(8, 2, dtype=torch.float32)
    loss, gradients = outcome(build("unigrad", negative=negative, target=target), mixed(ones))
    expected, wanted = outcome(build("unigrad", negative=negative, target=target), plain())
    assert torch.equal(loss, expected)
    for name, gradient in wanted.items():
        assert torch.equal(gradients[name], gradient), name
    _, changed = outcome(build("unigrad", negative=negative, target=target), mixed())
    assert max((changed[name] - gradient).abs().max() for name, gradient in wanted.items()) > 1e-4


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in TAKERS),
        *(
            ("unigrad", {"negative": "contrastive", "target": target})
            for target in ("stop-gradient", "momentum-positive")
        ),
    ],
)
def test_a_share_of_nothing_is_the_partner_s_plain_loss(name: str, options: dict[str, Any]) -> None:
    """Every anchor is its partner's plain view, so loss and gradient of the batch are the plain ones."""
    loss, gradients = outcome(build(name, **options), mixed(torch.zeros(8, 2, dtype=torch.float64)))
    expected, wanted = outcome(build(name, **options), plain())
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-12)
    for key, gradient in wanted.items():
        torch.testing.assert_close(gradients[key], gradient, rtol=1e-8, atol=1e-11, msg=key)


@pytest.mark.parametrize("name", TAKERS)
def test_the_order_of_pairs_and_within_pairs_changes_nothing(name: str) -> None:
    loss, _ = outcome(build(name), mixed())
    for order in ([6, 7, 2, 3, 0, 1, 4, 5], [1, 0, 3, 2, 5, 4, 7, 6]):
        again, _ = outcome(build(name), [view[order] for view in mixed()])
        torch.testing.assert_close(again, loss, rtol=1e-9, atol=1e-11)
    parted, _ = outcome(build(name), [view[[0, 2, 1, 3, 4, 6, 5, 7]] for view in mixed()])
    assert abs(parted - loss) > 1e-5


def run_each(runtime: Runtime) -> list[Outcome]:
    """Every method with mixed views, and UniGrad with four, two of them small."""
    share = shares().repeat(1, 2)
    crops = random_views(16, 16, 8, 8)
    several = [*crops, *[view.flip(1) for view in crops], share]
    return [
        *(two_steps(build(name), mixed(), runtime) for name in TAKERS),
        two_steps(build("unigrad"), several, runtime),
        two_steps(build("unigrad", negative="barlow-twins"), several, runtime),
        two_steps(build("unigrad", negative="contrastive", target="stop-gradient"), several, runtime),
    ]


def test_two_ranks_are_one() -> None:
    alone = run_each(ALONE)
    for outcomes in on_ranks(run_each):
        for number, (result, expected) in enumerate(zip(outcomes, alone, strict=True)):
            assert_same_outcome(result, expected, f"case {number}")


def test_roles_and_targets() -> None:
    views = mixed()
    roles = by_role(views)
    assert roles.mixed
    assert all(a is b for a, b in zip(roles.plain + roles.online, views[:4], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(roles.shares, views[4].unbind(1), strict=True))  # type: ignore[arg-type]
    still = by_role(plain())
    assert (still.mixed, still.shares, len(still.plain)) == (False, [None, None], 2)
    t = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0], [4.0, 0.0]])
    share = torch.tensor([0.75, 0.5, 1.0, 0.0])
    expected = torch.tensor([[0.75, 0.25], [0.5, 0.5], [2.0, 2.0], [2.0, 2.0]])
    assert torch.equal(mixed_targets(t, share), expected)
    assert mixed_targets(t, None) is t


@pytest.mark.parametrize("name", METHODS)
def test_methods_without_targets_for_mixtures_refuse(name: str) -> None:
    config = PretrainConfig(views=ViewsConfig("scenes", mix="cutmix"), method=MethodConfig(name))
    assert METHODS[name].mixes == (name in TAKERS)
    if name in TAKERS:
        config.check()
        return
    with pytest.raises(
        UserError, match=rf"views.mix cutmix: {name} has no target .*simsiam, simclr.*unigrad"
    ):
        config.check()
