"""The hub: each part by its formula, and the methods that the parts lead to by those methods' own code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.golden_methods import ALONE, TinyBackbone, assert_same_outcome, one_step, random_views
from support.small_runs import on_ranks
from support.small_simsiam import VIEWS, gradients, random_rows, small_variant, trained
from torch import Tensor
from torch.nn import functional as F

from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.gradient_view.forms import require_form
from siamtransfer.methods import METHODS, Method, StepInfo
from siamtransfer.methods.parts.queue import KeyQueue, replace_oldest
from siamtransfer.methods.simsiam_variants.hub import SHRINKAGE, Codes, Contrast, HubConfig, Whitening
from siamtransfer.methods.simsiam_variants.options import SimSiamVariantsConfig
from siamtransfer.methods.simsiam_variants.similarities import DistanceConfig
from siamtransfer.methods.simsiam_variants.targets import TargetConfig
from siamtransfer.methods.swav import sinkhorn
from siamtransfer.utils.errors import UserError

MOMENTUM = TargetConfig(fraction=1, momentum=0.9)


def unit(x: Tensor) -> np.ndarray:
    return F.normalize(x, dim=1).detach().numpy()


# Each part by its formula.


def info_nce(p: np.ndarray, t: np.ndarray, others: list[np.ndarray], tau: float) -> float:
    """The mean over rows n of -τ log(e^{p_n·t_n/τ} / (e^{p_n·t_n/τ} + Σ e^{p_n·v/τ})), v in others[n]."""
    losses = []
    for row, target, negatives in zip(p, t, others, strict=True):
        positive, rest = np.exp(row @ target / tau), np.exp(negatives @ row / tau).sum()
        losses.append(-tau * np.log(positive / (positive + rest)))
    return float(np.mean(losses))


@pytest.mark.parametrize(
    ("negatives", "queue"),
    [("none", 9), ("other-view", 0), ("both-views", 0), ("other-view", 9), ("both-views", 9)],
)
def test_negatives_are_the_others_of_the_view_or_of_both_and_the_queue(negatives: Any, queue: int) -> None:
    loss = Contrast(HubConfig(negatives=negatives, queue=queue, temperature=0.3), 4).double()
    p, t = ([random_rows(5, 4, seed) for seed in seeds] for seeds in ((1, 2, 3), (4, 5)))
    queued = np.zeros((0, 4)) if loss.queue is None else loss.queue.rows.numpy().copy()
    ours = loss(p, [(0, t[1]), (1, t[0]), (2, t[0]), (2, t[1])], t)
    expected = []
    for view, other in ((0, 1), (1, 0), (2, 0), (2, 1)):
        q, k = unit(p[view]), unit(t[other])
        rest = [queued] * 5
        if negatives != "none":
            rest = [np.concatenate([rows, np.delete(k, n, axis=0)]) for n, rows in enumerate(rest)]
        if negatives == "both-views" and view < 2:  # the third view is a local one and has no targets
            own = unit(t[view])
            rest = [np.concatenate([rows, np.delete(own, n, axis=0)]) for n, rows in enumerate(rest)]
        expected.append(info_nce(q, k, rest, 0.3))
    assert ours.item() == pytest.approx(np.mean(expected), rel=1e-12)


def test_the_queue_takes_in_the_targets_after_the_loss_oldest_out_first() -> None:
    loss = Contrast(HubConfig(queue=12), 4).double()
    assert loss.queue is not None
    before = loss.queue.rows.clone()
    torch.testing.assert_close(before.norm(dim=1), torch.ones(12, dtype=torch.float64), rtol=0, atol=1e-6)
    t = [random_rows(5, 4, seed) for seed in (4, 5)]
    loss([random_rows(5, 4, 1)], [(0, t[1])], t)
    assert torch.equal(loss.queue.rows[:5], F.normalize(t[1], dim=1))
    assert torch.equal(loss.queue.rows[5:], before[5:])
    loss([random_rows(5, 4, 1), random_rows(5, 4, 2)], [(0, t[1]), (1, t[0])], t)
    assert torch.equal(loss.queue.rows[5:10], F.normalize(t[1], dim=1))
    assert torch.equal(loss.queue.rows[[10, 11, 0, 1, 2]], F.normalize(t[0], dim=1))
    assert torch.equal(loss.queue.rows[3:5], F.normalize(t[1], dim=1)[3:])
    assert loss.queue.start.item() == 3


def test_of_more_keys_than_rows_a_queue_keeps_the_last() -> None:
    queue, start, keys = torch.zeros(3, 1), torch.tensor(2), torch.arange(5.0)[:, None]
    replace_oldest(queue, start, keys)
    assert queue[:, 0].tolist() == [3.0, 4.0, 2.0]
    assert start.item() == 2
    assert KeyQueue(3, 2).rows.shape == (3, 2)


def test_predictions_predict_the_codes_of_targets() -> None:
    loss = Codes(HubConfig(prototypes=3, temperature=0.2, epsilon=0.1), 4).double()
    loss.normalise()
    c = loss.prototypes.weight.detach()
    torch.testing.assert_close(c.norm(dim=1), torch.ones(3, dtype=torch.float64))
    p, t = ([random_rows(5, 4, seed) for seed in seeds] for seeds in ((1, 2), (4, 5)))
    expected = []
    for view in (0, 1):
        code = sinkhorn(torch.from_numpy(unit(t[1 - view])) @ c.T, 0.1, 3).numpy()
        scores = np.exp(unit(p[view]) @ c.T.numpy() / 0.2)
        expected.append(-0.2 * (code * np.log(scores / scores.sum(axis=1, keepdims=True))).sum(axis=1))
    assert loss(p, [(0, t[1]), (1, t[0])], t).item() == pytest.approx(np.mean(expected), rel=1e-12)


def test_whitened_groups_have_covariance_one_and_keep_the_rest() -> None:
    z = random_rows(40, 6, 1) @ random_rows(6, 6, 2)
    white = Whitening(3)(z)
    for begin in (0, 3):
        group = z[:, begin : begin + 3].numpy()
        shrunk = (1 - SHRINKAGE) * np.cov(group.T) + SHRINKAGE * np.eye(3)
        expected = (group - group.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(shrunk)).T
        np.testing.assert_allclose(white[:, begin : begin + 3].numpy(), expected, rtol=1e-9, atol=1e-9)
    whole = Whitening(6)(100 * z)  # so large that the share of the identity is next to nothing
    assert (torch.cov(whole.T) - torch.eye(6)).abs().max() < 5e-3
    assert Whitening(3)(torch.full((8, 6), torch.nan)).isnan().all()


def test_prototypes_and_queues_are_part_of_the_state_and_prototypes_are_trained() -> None:
    method = small_variant(hub=HubConfig(prototypes=5))
    assert "hub.prototypes.weight" in method.state_dict()
    assert gradients(method)["hub.prototypes.weight"].abs().max() > 0
    assert [group.name for group in method.groups()] == ["encoder", "predictor", "prototypes"]
    queue = small_variant(hub=HubConfig(queue=16))
    assert {"hub.queue.rows", "hub.queue.start"} <= set(queue.state_dict())
    assert [group.name for group in queue.groups()] == ["encoder", "predictor"]
    assert not {name for name in small_variant().state_dict() if "hub" in name or "whiten" in name}


def test_losses_of_half_precision_networks_are_in_float32() -> None:
    pair = [x.float() for x in VIEWS]
    for hub in (HubConfig(negatives="both-views", queue=16), HubConfig(prototypes=4), HubConfig(whitening=4)):
        exact = small_variant(hub=hub).float()(pair).loss
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = small_variant(hub=hub).float()(pair).loss
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(exact.item(), rel=0.1, abs=0.03)


# The methods that the parts lead to.


def same_networks(theirs: Method, **options: Any) -> Any:
    """simsiam-variants with the networks of the method `theirs`, and a predictor only if that has one."""
    ours = small_variant(**{"predictor": "trained" if hasattr(theirs, "predictor") else "none", **options})
    for name in ("backbone", "projector", "predictor", "target_backbone", "target_projector"):
        if hasattr(theirs, name):
            setattr(ours, name, getattr(theirs, name))
    return ours


def other(name: str, *, moved: bool = True, **options: Any) -> Any:
    """A method in float64, the same every time; its target network, if any, is another than the online one if
    `moved`."""
    torch.manual_seed(3)
    method = METHODS[name](TinyBackbone(), METHODS[name].Config(**options)).double()
    with torch.no_grad():
        for part, parameter in method.named_parameters():
            if moved and part.startswith("target_"):
                parameter += 0.1 * torch.randn_like(parameter)
    return method


def assert_proportional(ours: Method, theirs: Method, factor: float, shift: float = 0.0) -> None:
    """The loss of `theirs` and all its gradients are `factor` times those of `ours`, which shares its
    networks, but for a constant `shift` of the loss."""
    views, results = random_views(16, 16), []
    for method in (ours, theirs):
        method.zero_grad()
        loss = method(views).loss
        loss.backward()
        results.append((loss.item(), [p.grad.clone() for p in theirs.parameters() if p.grad is not None]))
    assert results[1][0] == pytest.approx(factor * results[0][0] + shift, rel=1e-10)
    assert len(results[0][1]) == len(results[1][1]) > 6
    for got, expected in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(factor * got, expected, rtol=1e-8, atol=1e-10)


def test_with_negatives_and_without_predictor_and_stop_gradient_it_is_simclr() -> None:
    theirs = other("simclr", dim=12, temperature=0.5)
    hub = HubConfig(negatives="both-views", temperature=0.5)
    assert_proportional(same_networks(theirs, stop_gradient=False, hub=hub), theirs, 1 / 0.5)


def test_with_negatives_and_without_predictor_it_is_the_contrastive_gradient_with_constant_targets() -> None:
    theirs = other(
        "unigrad", hidden=16, dim=12, negative="contrastive", target="stop-gradient", temperature=0.3
    )
    ours = same_networks(theirs, hub=HubConfig(negatives="both-views", temperature=0.3))
    views, found = random_views(16, 16), []
    for method in (ours, theirs):
        method.zero_grad()
        method(views).loss.backward()
        found.append([p.grad.clone() for p in method.projector.parameters() if p.grad is not None])
    for got, expected in zip(*found, strict=True):
        torch.testing.assert_close(got / 0.3, expected, rtol=1e-8, atol=1e-10)


def test_with_a_momentum_encoder_it_is_byol() -> None:
    theirs = other("byol", dim=12, hidden=16)
    assert_proportional(same_networks(theirs, target=MOMENTUM), theirs, 4, 4)


def test_with_a_momentum_encoder_and_negatives_it_is_moco_v3() -> None:
    theirs = other("moco-v3", dim=12, hidden=16, temperature=0.3)
    hub = HubConfig(negatives="other-view", temperature=0.3)
    assert_proportional(same_networks(theirs, target=MOMENTUM, hub=hub), theirs, 4)


def test_with_a_momentum_encoder_and_a_queue_and_without_predictor_it_is_moco_over_steps() -> None:
    """MoCo's encoder moves before a step, ours after the one before it."""
    theirs, twin = (other("moco", moved=False, dim=12, queue=16, temperature=0.3, momentum=0.9) for _ in "ab")
    hub = HubConfig(queue=16, temperature=0.3)
    ours = same_networks(twin, symmetric=False, target=MOMENTUM, hub=hub)
    ours.hub.queue.rows.copy_(theirs.queue)
    losses: list[list[float]] = [[], []]
    for number, (method, factor) in enumerate(((ours, 0.3), (theirs, 1.0))):
        optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1 / factor)
        for step, size in enumerate((5, 8, 7)):
            loss = one_step(method, optimizer, random_views(16, 16, batch=size), StepInfo(step, 10, 5))
            losses[number].append(loss.item() / factor)
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    torch.testing.assert_close(ours.hub.queue.rows, theirs.queue)
    assert ours.hub.queue.start == theirs.queue_start == 4


def test_with_clustering_and_without_predictor_it_is_swav() -> None:
    """In eval mode, for SwAV's batch norms see both views at once."""
    theirs = other("swav", dim=12, hidden=16, prototypes=7, temperature=0.2, epsilon=0.1).eval()
    hub = HubConfig(prototypes=7, temperature=0.2, epsilon=0.1)
    ours = same_networks(theirs, hub=hub).eval()
    ours.hub.prototypes = theirs.prototypes
    for method in (ours, theirs):
        method.before_forward(StepInfo(0, 10, 5))
    assert_proportional(ours, theirs, 1 / 0.2)


def test_with_whitening_and_without_predictor_and_stop_gradient_it_is_w_mse() -> None:
    """The squared distance of whitened unit vectors is 2 - 2 cos."""
    method = small_variant(predictor="none", stop_gradient=False, hub=HubConfig(whitening=6))
    whitened = []
    for x in VIEWS:
        z = method.projector(method.backbone(x))
        groups = []
        for group in z.split(6, dim=1):
            cov = (1 - SHRINKAGE) * torch.cov(group.T) + SHRINKAGE * torch.eye(6, dtype=torch.float64)
            groups.append((group - group.mean(dim=0)) @ torch.linalg.inv(torch.linalg.cholesky(cov)).T)
        whitened.append(F.normalize(torch.cat(groups, dim=1), dim=1))
    expected = (whitened[0] - whitened[1]).square().sum(dim=1).mean()
    wanted = torch.autograd.grad(expected, method.backbone.c1.weight)[0]
    ours = method(VIEWS).loss
    torch.testing.assert_close(2 + 2 * ours, expected)
    got = torch.autograd.grad(ours, method.backbone.c1.weight)[0]
    torch.testing.assert_close(2 * got, wanted, rtol=1e-8, atol=1e-10)


def test_a_momentum_encoders_targets_are_whitened_too() -> None:
    method = small_variant(target=MOMENTUM, hub=HubConfig(whitening=4))
    z = [method.whiten(method.projector(method.backbone(x))) for x in VIEWS]
    expected = [method.distance(method.predictor(z[i]), z[1 - i].detach()) for i in (0, 1)]
    torch.testing.assert_close(method(VIEWS).loss, (expected[0] + expected[1]) / 2)


# Two ranks.

PARTS = {
    "contrast": HubConfig(negatives="both-views", queue=24, whitening=3),
    "codes": HubConfig(prototypes=5),
}


def trained_on_ranks(runtime: Runtime) -> list[Any]:
    return [trained(small_variant(hub=hub, target=MOMENTUM), runtime, 3) for hub in PARTS.values()]


def test_two_ranks_are_one() -> None:
    alone = trained_on_ranks(ALONE)
    for outcomes in on_ranks(trained_on_ranks):
        for name, outcome, expected in zip(PARTS, outcomes, alone, strict=True):
            assert_same_outcome(outcome, expected, name)


# Options that mean nothing.


@pytest.mark.parametrize(
    ("hub", "options", "sentence"),
    [
        ({"queue": -1}, {}, r"hub\.queue is -1, but must be at least 0"),
        ({"queue": 32}, {}, r"hub\.queue 32 is shorter than optim\.batch_size 64, .* or set it to 0"),
        ({"prototypes": 1}, {}, r"hub\.prototypes is 1, and every code is the same: take 2"),
        ({"prototypes": 8, "queue": 64}, {}, r"hub\.prototypes is one loss, negatives or a queue are"),
        ({"prototypes": 8, "negatives": "other-view"}, {}, r"hub\.prototypes is one loss, negatives or"),
        ({"temperature": 0.1}, {}, r"hub\.temperature changes nothing without negatives"),
        ({"queue": 64, "temperature": 0.0}, {}, r"hub\.temperature is 0\.0, but must be above 0"),
        ({"queue": 64, "epsilon": 0.05}, {}, r"hub\.epsilon changes nothing without prototypes"),
        ({"prototypes": 8, "epsilon": 0.01}, {}, r"hub\.epsilon is 0\.01, but must be at least 0\.012"),
        ({"whitening": 1}, {}, r"hub\.whitening is 1, and one channel alone"),
        ({"whitening": 5}, {}, r"hub\.whitening 5 does not divide simsiam_variants\.dim 12"),
        ({"whitening": 128}, {"dim": 256}, r"hub\.whitening 128 is not below optim\.batch_size 64"),
        ({"queue": 64}, {"similarity": "mse"}, r"similarity changes nothing with .*hub\.queue"),
        (
            {"negatives": "both-views"},
            {"distance": DistanceConfig(weights={"cosine": 1.0})},
            r"distance changes nothing with .*hub\.negatives",
        ),
        ({"prototypes": 8}, {"stop_gradient": False}, r"stop_gradient changes nothing with .*prototypes"),
        (
            {"prototypes": 8},
            {"target": TargetConfig(gradient=0.5)},
            r"target\.gradient changes nothing with .*prototypes",
        ),
    ],
)
def test_options_that_mean_nothing_are_refused(
    hub: dict[str, Any], options: dict[str, Any], sentence: str
) -> None:
    config = SimSiamVariantsConfig(**{"dim": 12, "hub": HubConfig(**hub), **options})
    with pytest.raises(UserError, match=r"^simsiam_variants\." + sentence):
        config.check(64)


def test_options_that_go_together_are_taken_and_the_gradient_view_knows_none_of_them() -> None:
    for hub in (
        HubConfig(negatives="both-views", queue=64, whitening=4),
        HubConfig(prototypes=8, epsilon=0.1),
    ):
        config = SimSiamVariantsConfig(dim=12, hub=hub)
        config.check(64)
        with pytest.raises(UserError, match=r"simsiam_variants\.hub makes it another"):
            require_form(config, 2)
    SimSiamVariantsConfig(hub=HubConfig(whitening=64), stop_gradient=False, similarity="mse").check(65)


def test_a_pass_of_too_few_images_is_not_whitened() -> None:
    whiten = Whitening(4)
    assert whiten(random_rows(5, 8)).shape == (5, 8)
    with pytest.raises(UserError, match=r"whitening 4 is not below the 4 images of a pass.*grad_accum_steps"):
        whiten(random_rows(4, 8))
