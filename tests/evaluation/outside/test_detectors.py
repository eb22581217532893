"""Every score against pytorch-ood (golden/outside), scikit-learn, and where features say nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn.covariance import EmpiricalCovariance
from support import paths

from siamtransfer.evaluation.linear.logistic import LinearClassifier, fit_logistic
from siamtransfer.evaluation.linear.rows import Rows
from siamtransfer.evaluation.outside.detectors import SCORES, Detectors, Gaussians, principal_dimensions

GENERATOR = np.random.default_rng(0)
CENTRES = 3 * GENERATOR.normal(size=(4, 12))
Y = np.arange(400) % 4
TRAIN = CENTRES[Y] + GENERATOR.normal(size=(400, 12))
KNOWN = CENTRES[np.arange(6) % 4] + GENERATOR.normal(size=(6, 12))
NEW = np.concatenate([KNOWN, 4 * GENERATOR.normal(size=(6, 12))])
WEIGHT, BIAS = GENERATOR.normal(size=(4, 12)), GENERATOR.normal(size=4)


def rows(array: np.ndarray) -> Rows:
    return Rows.of(torch.from_numpy(array))


def head(mean: np.ndarray, scale: np.ndarray) -> LinearClassifier:
    """The head WEIGHT, BIAS, written with a mean and a scale of the features."""
    weight, bias = WEIGHT * scale, BIAS + WEIGHT @ mean
    return LinearClassifier(*map(torch.from_numpy, (mean, scale, weight, bias)), torch.arange(4), 1.0)


@pytest.mark.parametrize("standardised", [False, True])
def test_scores_equal_those_of_pytorch_ood(standardised: bool) -> None:
    golden = json.loads((paths.GOLDEN / "outside" / "pytorch_ood.json").read_text())
    mean, scale = (TRAIN.mean(axis=0), TRAIN.std(axis=0)) if standardised else (np.zeros(12), np.ones(12))
    detectors = Detectors.fit(rows(TRAIN), torch.from_numpy(Y), head(mean, scale), 5)
    ours = detectors.scores(rows(NEW))
    assert tuple(ours) == SCORES
    scatter = {"mahalanobis": 2 * len(TRAIN), "relative_mahalanobis": len(TRAIN)}
    for name, scores in ours.items():
        theirs = -np.array(golden[name]) * scatter.get(name, 1)
        np.testing.assert_allclose(scores, theirs, rtol=2e-5, atol=2e-5, err_msg=name)
        assert name == "msp" or scores[:6].mean() > scores[6:].mean()
    assert detectors.virtual.alpha == pytest.approx(golden["vim_alpha"], rel=1e-5)
    assert detectors.virtual.dimensions == 6


def test_distances_equal_scikit_learns_even_where_directions_are_empty() -> None:
    flat = np.concatenate([TRAIN, TRAIN[:, :2] @ [[1.0, 2], [0, 1]], np.full((400, 1), 7.0)], axis=1)
    new = np.concatenate([NEW, NEW[:, :2] @ [[1.0, 2], [0, 1]], np.full((12, 1), 7.0)], axis=1)
    zeros = torch.zeros(4, 15).double()
    wide = LinearClassifier(zeros[0], zeros[0] + 1, zeros, zeros[:, 0], torch.arange(4), 1.0)
    ours = Detectors.fit(rows(flat), torch.from_numpy(Y), wide, 5).scores(rows(new))
    theirs = EmpiricalCovariance().fit(TRAIN - np.stack([TRAIN[y == Y].mean(axis=0) for y in Y]))
    means = np.stack([TRAIN[y == Y].mean(axis=0) for y in range(4)])
    precision = theirs.get_precision()
    gaps = NEW[:, None] - means
    expected = np.einsum("ncd,de,nce->nc", gaps, precision, gaps).min(axis=1)
    np.testing.assert_allclose(-ours["mahalanobis"], expected, rtol=1e-6)
    assert all(np.isfinite(scores).all() for scores in ours.values())


def test_gaussians_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Gaussians.fit(rows(TRAIN), torch.from_numpy(Y), 4)
    monkeypatch.setattr(
        Rows, "parts", lambda self, classes: (slice(i, i + 7) for i in range(0, len(self), 7))
    )
    parts = Gaussians.fit(rows(TRAIN), torch.from_numpy(Y), 4)
    for name in ("means", "mean", "within", "total"):
        torch.testing.assert_close(getattr(whole, name), getattr(parts, name))
    np.testing.assert_allclose(whole.total.numpy(), np.cov(TRAIN.T, bias=True), rtol=1e-9)


def test_features_that_are_all_equal_give_finite_scores() -> None:
    same = np.ones((20, 3))
    y = torch.arange(20) % 2
    detectors = Detectors.fit(rows(same), y, fit_logistic(torch.from_numpy(same), y, 1.0), 3)
    assert all(np.isfinite(scores).all() for scores in detectors.scores(rows(same)).values())


def test_the_principal_subspace_of_the_authors() -> None:
    assert [principal_dimensions(d) for d in (4096, 2048, 1024, 768, 512, 3)] == [
        1000,
        1000,
        512,
        512,
        256,
        1,
    ]
