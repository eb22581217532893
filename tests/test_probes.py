"""The linear probe against scikit-learn, its invariances, and who gets to see the test set."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from siamtransfer import probes
from siamtransfer.errors import UserError
from siamtransfer.probes import fit_logistic, probe, split_by_class, top_accuracy


def blobs(
    classes: int = 4, each: int = 40, d: int = 6, spread: float = 1.5, seed: int = 0
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, d, generator=torch.Generator().manual_seed(99)) * 2
    labels = torch.arange(classes).repeat_interleave(each)
    order = torch.randperm(len(labels), generator=generator)
    return (centres[labels] + spread * torch.randn(len(labels), d, generator=generator))[order], labels[order]


@pytest.mark.parametrize("strength", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("classes", [2, 4])
def test_coefficients_equal_scikit_learns(strength: float, classes: int) -> None:
    h, y = blobs(classes)
    ours = fit_logistic(h, y, strength)
    theirs = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000).fit(h.double().numpy(), y.numpy())
    weight, bias = ours.weight, ours.bias
    if classes == 2:  # scikit-learn fits one row there; penalising w and -w apart halves the penalty
        theirs = LogisticRegression(C=2 * strength, tol=1e-10, max_iter=10_000).fit(
            h.double().numpy(), y.numpy()
        )
        weight, bias = (weight[1:] - weight[:1]), (bias[1:] - bias[:1])
    np.testing.assert_allclose(weight.numpy(), theirs.coef_, atol=1e-3)
    np.testing.assert_allclose(
        (bias - bias.mean() * (classes > 2)).numpy(),
        theirs.intercept_ - theirs.intercept_.mean() * (classes > 2),
        atol=1e-3,
    )
    assert weight.abs().max() > 0.05


def test_the_gradient_of_the_objective_is_zero_at_the_solution() -> None:
    h, y = blobs()
    fit = fit_logistic(h, y, 0.3)
    weight, bias = fit.weight.clone().requires_grad_(), fit.bias.clone().requires_grad_()
    scores = h.double() @ weight.T + bias
    objective = (
        0.3 * torch.nn.functional.cross_entropy(scores, y, reduction="sum") + weight.square().sum() / 2
    )
    objective.backward()
    assert weight.grad is not None
    assert bias.grad is not None
    assert weight.grad.abs().max() < 1e-3
    assert bias.grad.abs().max() < 1e-3


def test_standardising_makes_scale_and_shift_of_features_irrelevant() -> None:
    h, y = blobs()
    scaled = h * torch.logspace(-3, 3, 6) + torch.linspace(-50, 50, 6)
    one = fit_logistic(h, y, 0.1, standardise=True)
    other = fit_logistic(scaled.double(), y, 0.1, standardise=True)
    torch.testing.assert_close(one.scores(h), other.scores(scaled.double()), rtol=1e-3, atol=1e-3)


def test_a_constant_feature_does_no_harm() -> None:
    h, y = blobs()
    fit = fit_logistic(torch.cat([h, torch.full((len(h), 1), 3.0)], dim=1), y, 1.0, standardise=True)
    assert torch.isfinite(fit.weight).all()
    assert fit.weight[:, -1].abs().max() == 0


def test_labels_may_be_any_integers() -> None:
    h, y = blobs()
    names = torch.tensor([-7, 1000, 3, 42])
    plain, named = fit_logistic(h, y, 1.0), fit_logistic(h, names[y], 1.0)
    assert named.classes.tolist() == [-7, 3, 42, 1000]
    assert top_accuracy(named, h, names[y]) == top_accuracy(plain, h, y) > 80
    assert top_accuracy(plain, h, torch.full_like(y, 77)) == 0, "a class unknown to train is never right"


def test_a_start_elsewhere_ends_in_the_same_place() -> None:
    h, y = blobs()
    start = fit_logistic(h, y, 10.0)
    torch.testing.assert_close(
        fit_logistic(h, y, 0.1, start=start).weight, fit_logistic(h, y, 0.1).weight, rtol=1e-4, atol=1e-5
    )


def test_one_class_is_refused() -> None:
    with pytest.raises(UserError, match="two classes"):
        fit_logistic(torch.randn(4, 2), torch.zeros(4, dtype=torch.long), 1.0)


def test_top_accuracy_counts_the_best_few() -> None:
    fit = fit_logistic(*blobs(), 1.0)
    fit.mean, fit.scale = torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    fit.weight, fit.bias = torch.eye(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    scores = torch.tensor([[4.0, 3, 2, 1], [4, 3, 2, 1], [4, 3, 2, 1], [4, 3, 2, 1]])
    labels = torch.arange(4)
    assert [top_accuracy(fit, scores, labels, top=top) for top in (1, 2, 3, 5)] == [25, 50, 75, 100]


def test_the_strength_is_chosen_on_held_out_train_and_test_is_seen_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train, y = blobs(each=30, spread=4)
    test, test_y = blobs(each=50, spread=4, seed=1)
    scored: list[Tensor] = []
    original = probes.top_accuracy

    def watch(classifier: object, features: Tensor, labels: Tensor, top: int = 1) -> float:
        scored.append(features)
        return original(classifier, features, labels, top)  # type: ignore[arg-type]

    monkeypatch.setattr(probes, "top_accuracy", watch)
    result = probe(train, y, test, test_y, strengths=[1.0, 1e-5, 1e-2])
    assert list(result.held_out) == [1e-5, 1e-2, 1.0]
    assert result.strength == min(
        c for c in result.held_out if result.held_out[c] == max(result.held_out.values())
    )
    holding = split_by_class(y, 0.1, 0)[1]
    assert [len(features) for features in scored] == [len(holding)] * 3 + [len(test)] * 2
    final = fit_logistic(train, y, result.strength, standardise=True)
    assert result.top1 == original(final, test, test_y)
    assert torch.equal(result.classifier.weight, final.weight), "refitted on all of train"
    single = probe(train, y, test, test_y, strengths=[0.5])
    assert (single.strength, single.held_out) == (0.5, {})


@given(
    st.lists(st.integers(-3, 3), min_size=2, max_size=60), st.sampled_from([0.1, 0.2, 0.5]), st.integers(0, 5)
)
def test_held_out_and_fitting_parts(labels: list[int], share: float, seed: int) -> None:
    y = torch.tensor(labels)
    if max(np.unique(labels, return_counts=True)[1]) < 2:
        with pytest.raises(UserError, match="two samples"):
            split_by_class(y, share, seed)
        return
    fitting, holding = split_by_class(y, share, seed)
    assert sorted([*fitting.tolist(), *holding.tolist()]) == list(range(len(labels)))
    for label in set(labels):
        count, held = labels.count(label), int((y[holding] == label).sum())
        assert held == (0 if count == 1 else min(max(1, round(share * count)), count - 1))
    again = split_by_class(y, share, seed)
    assert torch.equal(again[1], holding)


def test_another_seed_holds_out_others() -> None:
    y = torch.zeros(50, dtype=torch.long)
    assert not torch.equal(split_by_class(y, 0.2, 0)[1], split_by_class(y, 0.2, 1)[1])
