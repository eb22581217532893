"""Logistic regression for several labels an image: each class is scikit-learn's problem of its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from siamtransfer.evaluation.linear import multilabel
from siamtransfer.evaluation.linear.multilabel import (
    MultiLabelRegression,
    probe_labels,
    split_by_rarest,
)
from siamtransfer.metrics.average_precision import all_points, eleven_points
from siamtransfer.utils.errors import UserError


def samples(n: int = 200, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Features of very different scales, four classes from frequent to rare, and a tenth ignored."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, 9, generator=generator)
    truth = torch.randn(9, 4, generator=torch.Generator().manual_seed(99))
    labels = z @ truth + torch.randn(n, 4, generator=generator) > torch.tensor([-2.0, 0, 3, 5])
    ignored = torch.rand(n, 4, generator=generator) < 0.1
    return z * torch.logspace(-1, 1, 9) + 2, labels.long(), ignored


@pytest.mark.parametrize("strength", [1e-3, 0.1, 10.0, 1000.0])
@pytest.mark.parametrize("standardise", [False, True])
def test_every_class_is_scikit_learns_problem(strength: float, standardise: bool) -> None:
    h, y, ignored = samples()
    ours, _ = MultiLabelRegression(h, y, ignored, standardise=standardise).fit(strength)
    features = h.double().numpy()
    if standardise:
        features = StandardScaler().fit_transform(features)
    for c in range(4):
        rows = ~ignored[:, c].numpy()
        theirs = LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-12, max_iter=10_000)
        theirs.fit(features[rows], y[rows, c].numpy())
        np.testing.assert_allclose(ours.weight[c].numpy(), theirs.coef_[0], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(float(ours.bias[c]), theirs.intercept_[0], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(
            ours.scores(h)[:, c], theirs.decision_function(features), rtol=1e-3, atol=1e-3
        )


def test_classes_share_nothing() -> None:
    h, y, ignored = samples()
    together, _ = MultiLabelRegression(h, y, ignored).fit(1.0)
    for c in range(4):
        alone, _ = MultiLabelRegression(h, y[:, [c]], ignored[:, [c]]).fit(1.0)
        torch.testing.assert_close(alone.weight[0], together.weight[c], rtol=1e-4, atol=1e-5)


def test_an_ignored_label_may_be_anything() -> None:
    h, y, ignored = samples()
    one, _ = MultiLabelRegression(h, y, ignored).fit(1.0)
    other, _ = MultiLabelRegression(h, torch.where(ignored, 1 - y, y), ignored).fit(1.0)
    torch.testing.assert_close(one.weight, other.weight, rtol=1e-4, atol=1e-5)


def test_a_start_elsewhere_ends_in_the_same_place() -> None:
    h, y, ignored = samples()
    problem = MultiLabelRegression(h, y, ignored)
    _, far = problem.fit(100.0)
    torch.testing.assert_close(
        problem.fit(0.1, start=far)[0].weight, problem.fit(0.1)[0].weight, rtol=1e-4, atol=1e-5
    )


def test_more_features_than_images() -> None:
    h, y, ignored = samples(30)
    wide = torch.cat([h, torch.randn(30, 50)], dim=1)
    ours, _ = MultiLabelRegression(wide, y[:, :3], ignored[:, :3]).fit(0.1)
    rows = ~ignored[:, 1].numpy()
    theirs = LogisticRegression(C=0.1, solver="newton-cholesky", tol=1e-12, max_iter=10_000)
    theirs.fit(wide.double().numpy()[rows], y[rows, 1].numpy())
    np.testing.assert_allclose(ours.weight[1].numpy(), theirs.coef_[0], rtol=1e-3, atol=1e-3)


def test_a_class_that_none_or_all_show_is_named() -> None:
    h, y, ignored = samples()
    for value, how_many in ((0, "none"), (1, "all")):
        bad = y.clone()
        bad[~ignored[:, 2], 2] = value
        bad[ignored[:, 2], 2] = 1 - value
        with pytest.raises(UserError, match=rf"class 2 \(from 0\) is shown by {how_many} of the images"):
            MultiLabelRegression(h, bad, ignored)


@pytest.mark.parametrize("rule", [all_points, eleven_points])
def test_the_strength_is_chosen_on_held_out_images(rule: multilabel.Rule) -> None:
    h, y, ignored = samples(400)
    strengths = [10.0, 1e-5, 0.1]
    result = probe_labels(h, y, strengths=strengths, ignored=ignored, seed=4, rule=rule)
    fitting, holding = split_by_rarest(y, ignored, 0.1, 4)
    expected = {}
    for strength in sorted(strengths):
        classifier, _ = MultiLabelRegression(h[fitting], y[fitting], ignored[fitting]).fit(strength)
        scores, values = classifier.scores(h[holding]).numpy(), []
        for c in range(4):
            rows = holding[~ignored[holding, c]]
            kept = (~ignored[holding, c]).numpy()
            if y[rows, c].any():
                values.append(100 * rule(scores[kept, c], y[rows, c].bool().numpy()))
        expected[strength] = float(np.mean(values))
    assert list(result.held_out) == sorted(strengths)
    assert result.held_out == pytest.approx(expected, abs=1.0)  # they were fitted in single precision
    best = max(result.held_out, key=lambda c: (result.held_out[c], -c))
    assert result.classifier.strength == best
    whole, _ = MultiLabelRegression(h, y, ignored).fit(best)
    torch.testing.assert_close(result.classifier.weight, whole.weight)


def test_one_strength_needs_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multilabel, "split_by_rarest", lambda *_: pytest.fail("there is nothing to choose"))
    h, y, _ = samples()
    result = probe_labels(h, y, strengths=[0.5])
    assert (result.classifier.strength, result.held_out) == (0.5, {})


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.3, 0.6]), st.integers(0, 3))
def test_a_class_that_is_shown_is_shown_among_the_fitted(number: int, share: float, seed: int) -> None:
    generator = np.random.default_rng(number)
    labels = torch.from_numpy((generator.random((30, 5)) < generator.random(5) * 0.5).astype(np.int64))
    ignored = torch.from_numpy(generator.random((30, 5)) < 0.2)
    fitting, holding = split_by_rarest(labels, ignored, share, seed)
    assert sorted([*fitting.tolist(), *holding.tolist()]) == list(range(30)) and len(holding)
    shown = labels.bool() & ~ignored
    assert (shown[fitting].any(dim=0) == shown.any(dim=0)).all()
    again = split_by_rarest(labels, ignored, share, seed)
    assert torch.equal(again[1], holding)


def test_nothing_held_out_shows_a_class() -> None:
    labels = torch.eye(4, dtype=torch.long)
    empty = torch.zeros(30, 4, dtype=torch.long)
    with pytest.raises(UserError, match="none of the images to be scored shows any class"):
        probe_labels(torch.randn(34, 3), torch.cat([labels, empty]), strengths=[0.1, 1.0])
