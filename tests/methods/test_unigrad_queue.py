"""UniGrad's contrastive gradient with a queue, against MoCo's own loss, by steps, and on two ranks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.golden_methods import ALONE, TinyBackbone, assert_same_outcome, random_views, two_steps
from support.small_runs import on_ranks
from torch import Tensor
from torch.nn import functional as F

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.methods.parts.mixing import swapped
from siamtransfer.methods.unigrad import UniGrad, UniGradConfig
from siamtransfer.utils.errors import UserError

TARGETS = ("momentum", "stop-gradient", "momentum-positive")


def small(**options: Any) -> UniGrad:
    """In float64 with a target network, if any, that is not the online one."""
    torch.manual_seed(0)
    config = UniGradConfig(hidden=10, dim=6, negative="contrastive", queue=20, temperature=0.3, **options)
    method = UniGrad(TinyBackbone(), config).double()
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if name.startswith("target_"):
                parameter += 0.1 * torch.randn_like(parameter)
    return method


def moco(q: Tensor, k: Tensor, queue: Tensor, share: float = 1.0, other: Tensor | None = None) -> Tensor:
    """The mean of MoCo's cross-entropy at τ = 0.3, against k[N,d] by `share` and against `other` by the
    rest."""
    negatives = q @ queue.T
    losses = [
        F.cross_entropy(
            torch.cat([(q * key).sum(dim=1, keepdim=True), negatives], dim=1) / 0.3,
            torch.zeros(len(q), dtype=torch.int64),
        )
        for key in (k, k if other is None else other)
    ]
    return share * losses[0] + (1 - share) * losses[1]


def network_gradients(method: UniGrad, loss: Tensor) -> list[Tensor]:
    parameters = [p for p in method.parameters() if p.requires_grad]
    return list(torch.autograd.grad(loss, parameters))


@pytest.mark.parametrize("target", ["momentum", "stop-gradient"])
def test_the_network_gets_the_gradient_of_mocos_loss_in_both_directions(target: Any) -> None:
    method, views = small(target=target), random_views(16, 16)
    queue = method.queue.rows.clone()
    u = [F.normalize(method.projector(method.backbone(x)), dim=1) for x in views]
    keys = [method.target(x) for x in views] if target == "momentum" else [x.detach() for x in u]
    expected = network_gradients(method, (moco(u[0], keys[1], queue) + moco(u[1], keys[0], queue)) / 2)
    for got, wanted in zip(network_gradients(method, method(views).loss), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-10)
    assert torch.equal(method.queue.rows[:16], torch.cat(keys))
    assert torch.equal(method.queue.rows[16:], queue[16:])


def test_with_a_momentum_encoder_in_the_positive_part_alone_the_queue_is_the_encoders_own() -> None:
    method, views = small(target="momentum-positive"), random_views(16, 16)
    queue = method.queue.rows.clone()
    u = [F.normalize(method.projector(method.backbone(x)), dim=1).detach() for x in views]
    online, targets = (u[0], u[1]), [method.target(x) for x in views]
    g1, _ = method.gradients(online, targets, online)
    logits = torch.cat([(u[0] * u[1]).sum(dim=1, keepdim=True), u[0] @ queue.T], dim=1) / 0.3
    weights = logits.softmax(dim=1)
    torch.testing.assert_close(g1, (-targets[1] + weights[:, :1] * u[1] + weights[:, 1:] @ queue) / 0.3)
    assert torch.equal(method.queue.rows[:16], torch.cat(u))


def test_a_mixed_view_has_the_mixture_of_mocos_losses() -> None:
    method = small(target="momentum")
    generator = torch.Generator().manual_seed(2)
    u, keys = (
        [F.normalize(torch.randn(8, 6, generator=generator, dtype=torch.float64), dim=1) for _ in "12"]
        for _ in "uk"
    )
    queue, share = method.queue.rows.clone(), torch.full((8,), 0.75, dtype=torch.float64)
    anchor = u[0].requires_grad_()
    (wanted,) = torch.autograd.grad(moco(anchor, keys[1], queue, 0.75, swapped(keys[1])), anchor)
    gradients = method.decompose([anchor.detach(), u[1]], keys, keys, [share, share])
    torch.testing.assert_close(gradients[0].total / 8, wanted)


def run_each(runtime: Runtime) -> list[Any]:
    return [two_steps(small(target=target), random_views(16, 16), runtime) for target in TARGETS]


def test_two_ranks_are_one() -> None:
    alone = run_each(ALONE)
    for outcomes in on_ranks(run_each):
        for target, outcome, expected in zip(TARGETS, outcomes, alone, strict=True):
            assert_same_outcome(outcome, expected, target)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"queue": -1}, r"unigrad\.queue is -1, but must be at least 0"),
        ({"queue": 1024}, r"unigrad\.queue changes nothing .* of unigrad: leave it out, .* to contrastive"),
        (
            {"queue": 127, "negative": "contrastive"},
            r"unigrad\.queue 127 is shorter than twice optim\.batch_size 64, .* or set it to 0 for none",
        ),
    ],
)
def test_queues_that_mean_nothing_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        UniGradConfig(**options).check(64)
    UniGradConfig(queue=128, negative="contrastive").check(64)
