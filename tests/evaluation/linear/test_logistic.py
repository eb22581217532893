"""The linear probe against scikit-learn, its invariances, and who gets to see the test set."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression as SciKitLearns
from torch import Tensor

from siamtransfer.evaluation.linear import logistic
from siamtransfer.evaluation.linear.logistic import fit_logistic, probe, split_by_class, top_accuracy
from siamtransfer.evaluation.linear.splits import number_classes
from siamtransfer.features.extract import Features
from siamtransfer.utils.errors import UserError


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
    theirs = SciKitLearns(C=strength, tol=1e-10, max_iter=10_000).fit(h.double().numpy(), y.numpy())
    weight, bias = ours.weight, ours.bias
    if classes == 2:  # scikit-learn fits one row there; penalising w and -w apart halves the penalty
        theirs = SciKitLearns(C=2 * strength, tol=1e-10, max_iter=10_000).fit(h.double().numpy(), y.numpy())
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


def test_confidences_are_scikit_learns_probabilities() -> None:
    (h, y), (new, labels) = blobs(), blobs(seed=1)
    y, split = number_classes(10 * y, Features(new, 10 * labels))
    predicted = split.score("linear", fit_logistic(h, y, 0.3).scores(new))
    theirs = SciKitLearns(C=0.3, tol=1e-10, max_iter=10_000).fit(h.double().numpy(), 10 * y.numpy())
    kept = split.predictions({"linear": predicted, "other": predicted})
    assert list(kept.confidences) == ["linear"], "of what was scored under its name"
    p = theirs.predict_proba(new.double().numpy())
    np.testing.assert_allclose(kept.confidences["linear"], p.max(axis=1), atol=1e-4)
    assert (kept.settings["linear"] == theirs.classes_[p.argmax(axis=1)]).all()
    assert kept.confidences["linear"].std() > 0.1
    with pytest.raises(UserError, match="a score of the classifier is not finite"):
        split.score("linear", torch.tensor([[0.0, torch.inf, 1, 2]]).expand(len(new), 4))


def test_labels_may_be_any_integers() -> None:
    h, y = blobs()
    names = torch.tensor([-7, 1000, 3, 42])
    plain, named = fit_logistic(h, y, 1.0), fit_logistic(h, names[y], 1.0)
    assert named.classes.tolist() == [-7, 3, 42, 1000]
    assert top_accuracy(named, h, names[y]) == top_accuracy(plain, h, y) > 80
    assert top_accuracy(plain, h, torch.full_like(y, 77)) == 0, "a class unknown to train is never right"


def test_a_start_elsewhere_ends_in_the_same_place() -> None:
    h, y = blobs()
    problem = logistic.LogisticRegression(h, y)
    _, start = problem.fit(10.0)
    found, _ = problem.fit(0.1, start=start)
    torch.testing.assert_close(found.weight, fit_logistic(h, y, 0.1).weight, rtol=1e-4, atol=1e-5)


def test_more_features_than_samples_equal_scikit_learns_too() -> None:
    h, y = blobs(each=5, d=60)
    theirs = SciKitLearns(C=0.7, tol=1e-10, max_iter=10_000).fit(h.double().numpy(), y.numpy())
    np.testing.assert_allclose(fit_logistic(h, y, 0.7).weight.numpy(), theirs.coef_, atol=1e-3)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")  # scikit-learn's own solver at its limits
def test_weak_penalties_on_badly_scaled_features_converge_in_tens_of_steps() -> None:
    """The reason for the turned axes: raw, these features need hundreds of steps."""
    h, y = blobs(classes=5, each=100, d=20, spread=4)
    h = h * torch.logspace(-2, 2, 20)
    calls = []
    original = torch.nn.functional.cross_entropy

    def counted(*words: Tensor) -> Tensor:
        calls.append(1)
        return original(*words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logistic.F, "cross_entropy", counted)
        fit = fit_logistic(h, y, 100.0)
    assert len(calls) < 100
    theirs = SciKitLearns(C=100.0, tol=1e-12, max_iter=100_000, solver="newton-cg")
    theirs.fit(h.double().numpy(), y.numpy())
    np.testing.assert_allclose(fit.weight.numpy(), theirs.coef_, atol=1e-3)


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


def test_the_strength_is_chosen_on_held_out_train() -> None:
    train, y = blobs(each=30, spread=4)
    result = probe(train, y, strengths=[1.0, 1e-5, 1e-2])
    chosen = result.classifier.strength
    assert list(result.held_out) == [1e-5, 1e-2, 1.0]
    assert chosen == min(c for c in result.held_out if result.held_out[c] == max(result.held_out.values()))
    fitting, holding = split_by_class(y, 0.1, 0)
    for strength, accuracy in result.held_out.items():
        own = fit_logistic(train[fitting], y[fitting], strength)
        assert accuracy == top_accuracy(own, train[holding], y[holding])
    final = fit_logistic(train, y, chosen)
    assert torch.equal(result.classifier.weight, final.weight), "refitted on all of train"
    single = probe(train, y, strengths=[0.5])
    assert (single.classifier.strength, single.held_out) == (0.5, {})


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
