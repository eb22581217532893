"""Targets of simsiam-variants against formulas, and as invariances."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from support.golden_methods import ALONE, random_views
from support.small_simsiam import VIEWS, gradients, random_rows, small_variant, trained
from torch import Tensor

from siamtransfer.methods import StepInfo
from siamtransfer.methods.simsiam_variants.targets import (
    StopGradient,
    TargetConfig,
    TargetMemory,
    prediction_pairs,
)


def test_loss_is_minus_one_for_agreeing_views_without_a_predictor():
    x = VIEWS[0]
    assert small_variant(predictor="none")([x, x]).loss.item() == pytest.approx(-1, abs=1e-12)


def test_without_a_predictor_the_stop_gradient_halves_the_gradient_and_changes_nothing_else():
    """Section 4.2: symmetric loss without h has half the gradient of the loss without stop-gradient."""
    stopped, passed = (gradients(small_variant(predictor="none", stop_gradient=s)) for s in (True, False))
    for name, gradient in stopped.items():
        torch.testing.assert_close(2 * gradient, passed[name], rtol=1e-10, atol=1e-14)


def test_the_target_passes_no_gradient():
    z = torch.randn(4, 12, dtype=torch.float64, requires_grad=True)
    assert not small_variant().target(z).requires_grad
    assert small_variant(stop_gradient=False).target(z) is z


@pytest.mark.parametrize(("fraction", "options"), [(0.0, {}), (1.0, {"stop_gradient": False})])
def test_the_ends_of_a_partial_gradient_are_stop_gradient_and_none(fraction: float, options: Any):
    ours, theirs = (
        gradients(small_variant(target=TargetConfig(gradient=fraction))),
        gradients(small_variant(**options)),
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_partial_gradient_lies_between_and_changes_no_loss():
    none, some, full = (small_variant(target=TargetConfig(gradient=fraction)) for fraction in (0.0, 0.3, 1.0))
    assert none(VIEWS).loss == some(VIEWS).loss == full(VIEWS).loss
    g0, g3, g1 = gradients(none), gradients(some), gradients(full)
    for name, ours in g3.items():
        torch.testing.assert_close(ours, 0.7 * g0[name] + 0.3 * g1[name], rtol=1e-9, atol=1e-13)
    assert (g0["backbone.c1.weight"] - g1["backbone.c1.weight"]).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("spread", "fraction"), [(0.0, 0.0), (0.5, 0.0), (0.6, 0.2), (0.75, 0.5), (1.2, 0.8)]
)
def test_a_dynamic_gradient_opens_as_outputs_spread(spread: float, fraction: float):
    target = StopGradient(TargetConfig(gradient=0.8, spread=[0.5, 0.9]), 12, stop=True)
    assert target.fraction == 0
    target.spread.fill_(spread)
    assert target.fraction == pytest.approx(fraction, abs=1e-6)


def test_the_spread_is_a_moving_average_of_the_papers_measure():
    method = small_variant(target=TargetConfig(gradient=0.5, spread=[0.0, 1.0]))
    out = method(VIEWS)
    z = torch.cat(out.projections).numpy()
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    expected = 0.1 * np.std(z, axis=0, ddof=1).mean() * np.sqrt(12)
    assert float(method.target.spread) == pytest.approx(expected, rel=1e-6)
    assert float(out.numbers["simsiam/target_gradient"]) == pytest.approx(0.5 * expected, rel=1e-6)


@pytest.mark.parametrize("fraction", [0.3, 1.0])
def test_a_second_network_without_momentum_is_simsiam_to_the_bit(fraction: float):
    loss, _, plain = trained(small_variant(), ALONE, 3)
    ours, _, state = trained(small_variant(target=TargetConfig(fraction=fraction, momentum=0)), ALONE, 3)
    assert loss == ours
    assert all(torch.equal(state[name], tensor) for name, tensor in plain.items())


def test_a_second_network_with_momentum_is_not():
    plain, ours = (
        trained(small_variant(), ALONE, 3),
        trained(small_variant(target=TargetConfig(fraction=1)), ALONE, 3),
    )
    assert plain[0] != ours[0]
    for name in ("backbone.c1.weight", "projector.0.weight"):
        assert not torch.equal(ours[2][name], ours[2][f"target_{name}"])


def test_alternation_has_targets_from_the_weights_of_the_last_round():
    method = small_variant(target=TargetConfig(fraction=1, momentum=0, every=2))
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.5)
    for step in range(5):
        if step % 2 == 0:
            f, g = copy.deepcopy(method.backbone), copy.deepcopy(method.projector)
        method.before_forward(StepInfo(step, 5, 5))
        with torch.no_grad():
            t1, t2 = (g(f(x)) for x in VIEWS)
        probe = copy.deepcopy(method)
        p1, p2 = (probe.predictor(probe.projector(probe.backbone(x))) for x in VIEWS)
        expected = (method.distance(p1, t2) + method.distance(p2, t1)) / 2
        loss = method(VIEWS).loss
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_update(StepInfo(step, 5, 5))


def test_the_second_network_comes_and_goes_by_epoch():
    method = small_variant(target=TargetConfig(fraction=0.4, start_epoch=1, stop_epoch=3))
    fractions = []
    for step in range(0, 10, 2):
        method.before_forward(StepInfo(step, 10, 2))
        fractions.append(method.target_fraction)
    assert fractions == [0, 0.4, 0.4, 0, 0]


def test_targets_are_averages_over_augmentations():
    memory = TargetMemory(5, 3, 0.8).double()
    first, second = random_rows(2, 3, 1), random_rows(2, 3, 2)
    index = torch.tensor([4, 1])
    ours = memory([first, second], index)
    assert torch.equal(ours[0], first)
    assert torch.equal(ours[1], second)
    average = (first + second) / 2
    torch.testing.assert_close(memory.average[index], average)
    assert memory.seen.tolist() == [False, True, False, False, True]
    third = random_rows(2, 3, 3)
    ours = memory([third, second], torch.tensor([1, 0]))
    torch.testing.assert_close(ours[0][0], 0.8 * average[1] + 0.2 * third[0])
    torch.testing.assert_close(ours[1][0], 0.8 * average[1] + 0.2 * second[0])
    torch.testing.assert_close(memory.average[1], 0.8 * average[1] + 0.2 * (third[0] + second[0]) / 2)
    torch.testing.assert_close(memory.average[4], average[0])


def test_the_average_replaces_the_predictor_and_passes_no_gradient():
    method = small_variant(predictor="none", target=TargetConfig(memory=0.8))
    index = torch.arange(8)
    method(VIEWS, index)
    old = method.memory.average[index].clone()
    loss = method(VIEWS, index).loss
    z1, z2 = (method.projector(method.backbone(x)) for x in VIEWS)
    t1, t2 = (0.8 * old + 0.2 * z.detach() for z in (z1, z2))
    expected = (method.distance(z1, t2) + method.distance(z2, t1)) / 2
    torch.testing.assert_close(loss, expected)
    ours = torch.autograd.grad(loss, method.backbone.c1.weight)
    torch.testing.assert_close(ours, torch.autograd.grad(expected, method.backbone.c1.weight))


def test_pairs_of_predictions_and_targets():
    t1, t2, t3, t4 = targets = list(random_rows(4, 3))

    def pairs(targets: list[Tensor], views: int, **how: bool) -> list[tuple[int, list[float]]]:
        return [
            (i, t.tolist())
            for i, t in prediction_pairs(targets, views, **{"mean": False, "symmetric": True, **how})
        ]

    assert pairs([t1, t2], 2) == pairs([t1, t2], 2, mean=True) == [(0, t2.tolist()), (1, t1.tolist())]
    assert len(pairs(targets, 4)) == 12
    assert pairs([t1, t2], 3)[2:] == [(2, t1.tolist()), (2, t2.tolist())]
    assert pairs([t1, t2, t3], 3, mean=True)[0] == (0, ((t2 + t3) / 2).tolist())
    assert pairs(targets, 4, symmetric=False) == [(0, t2.tolist()), (2, t4.tolist())]


def test_views_of_views_are_pairs():
    views = random_views(16, 16, 16)
    for views_of, pairs in (("each", None), ("mean", None)):
        method = small_variant(target=TargetConfig(views=views_of))
        loss = method(views).loss
        z = [method.projector(method.backbone(x)) for x in views]
        p = [method.predictor(one) for one in z]
        if views_of == "each":
            pairs = [method.distance(p[i], z[j]) for i, j in itertools.permutations(range(3), 2)]
        else:
            pairs = [method.distance(p[i], sum(z[j] for j in range(3) if j != i) / 2) for i in range(3)]
        torch.testing.assert_close(loss, sum(pairs) / len(pairs), rtol=1e-12, atol=1e-12)


def test_small_crops_predict_and_are_not_predicted():
    method = small_variant()
    views = random_views(16, 16, 8)
    loss = method(views).loss
    z = [method.projector(method.backbone(x)) for x in views]
    p = [method.predictor(one) for one in z]
    pairs = [method.distance(p[i], z[j]) for i, j in ((0, 1), (1, 0), (2, 0), (2, 1))]
    torch.testing.assert_close(loss, sum(pairs) / 4, rtol=1e-12, atol=1e-12)
