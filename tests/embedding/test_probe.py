"""A probe from few labels: choices are blind to what is scored, and probabilities mean something."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

from siamtransfer.embedding.predict import probe
from siamtransfer.embedding.predict.estimate import estimate
from siamtransfer.embedding.predict.head import nearest_distances, own_distances, threshold_of
from siamtransfer.embedding.predict.probe import (
    FOLDS,
    UNCALIBRATED,
    FittedProbe,
    _Problem,
    fit_probe,
    fold_numbers,
)
from siamtransfer.metrics.temperature import calibrate, probabilities
from siamtransfer.metrics.unit_rows import unit_rows


def blobs(
    per_class: list[int], spread: float, seed: int = 0, dim: int = 12
) -> tuple[torch.Tensor, np.ndarray]:
    """Features around a centre for each class; the centres are the same for every seed and spread."""
    centres = np.random.default_rng(99).normal(size=(len(per_class), dim))
    labels = np.repeat(np.arange(len(per_class)), per_class)
    noise = np.random.default_rng(seed).normal(size=(len(labels), dim))
    return torch.from_numpy(centres[labels] + spread * noise).float(), labels


def test_scores_are_those_of_scikit_learn() -> None:
    for per_class, dim in (([12, 8, 9], 12), ([30, 25], 90)):  # more images than features, and fewer
        features, labels = blobs(per_class, 1.0, dim=dim)
        fitted = _Problem(features, labels).fit(10.0)
        rows = normalize(features.double().numpy())
        mean = rows.mean(axis=0)
        scale = np.sqrt(((rows - mean) ** 2).sum(axis=1).mean())
        reference = LogisticRegression(C=10.0, tol=1e-10, max_iter=10_000).fit((rows - mean) / scale, labels)
        new, _ = blobs([5] * len(per_class), 1.0, seed=1, dim=dim)
        margins = reference.decision_function((normalize(new.double().numpy()) - mean) / scale)
        expected = margins if len(per_class) > 2 else np.stack([-margins, margins], axis=1) / 2
        assert np.allclose(log_softmax(fitted.scores(new), 1), log_softmax(expected, 1), atol=1e-2)


def test_every_image_is_held_out_once_but_the_only_one_of_a_class() -> None:
    labels = np.array([0] * 7 + [1] * 3 + [2] + [3] * 2)
    folds = fold_numbers(labels, seed=3)
    assert (folds[labels == 2] == -1).all() and (folds[labels != 2] >= 0).all()
    for fold in range(FOLDS):
        assert set(labels[folds != fold]) == {0, 1, 2, 3}
    sizes = np.bincount(folds[folds >= 0], minlength=FOLDS)
    assert sizes.max() - sizes.min() <= 1


def test_labels_without_meaning_are_estimated_near_chance() -> None:
    accuracies = []
    for seed in range(4):
        features = torch.from_numpy(np.random.default_rng(seed).normal(size=(40, 20))).float()
        labels = np.random.default_rng(100 + seed).permutation(np.repeat([0, 1], 20))
        found = estimate(fit_probe(features, labels, 2, seed=seed), labels, 2)
        assert found.low <= 50 <= found.high or found.high < 50
        accuracies.append(found.accuracy)
    assert 35 <= np.mean(accuracies) <= 62


def test_the_estimate_foretells_the_accuracy_on_new_images() -> None:
    inside, differences = 0, []
    for seed in range(5):
        features, labels = blobs([10, 10, 10, 10], 1.6, seed=seed)
        fitted = fit_probe(features, labels, 4, seed=seed)
        new, truth = blobs([200] * 4, 1.6, seed=1000 + seed)
        accuracy = 100 * float((fitted.probe.scores(new).argmax(axis=1) == truth).mean())
        found = estimate(fitted, labels, 4)
        inside += found.low <= accuracy <= found.high
        differences.append(found.accuracy - accuracy)
    assert inside >= 4 and abs(np.mean(differences)) < 8


def test_probabilities_are_right_as_often_as_they_say() -> None:
    said, right = [], []
    for seed in range(5):
        features, labels = blobs([12] * 4, 1.6, seed=seed)
        fitted = fit_probe(features, labels, 4, seed=seed)
        new, truth = blobs([200] * 4, 1.6, seed=1000 + seed)
        p = probabilities(fitted.probe.scores(new), fitted.temperature)
        said.append(p.max(axis=1).mean())
        right.append((p.argmax(axis=1) == truth).mean())
    assert abs(np.mean(said) - np.mean(right)) < 0.06


def test_temperature_minimises_the_smoothed_cross_entropy() -> None:
    generator = np.random.default_rng(0)
    scores, labels = 5 * generator.normal(size=(60, 3)), generator.integers(0, 3, 60)
    found, least = calibrate(scores, labels)
    targets = np.full((60, 3), 1 / 63)
    targets[np.arange(60), labels] = 61 / 63

    def entropy(temperature: float) -> float:
        return float(-(targets * log_softmax(scores / temperature, axis=1)).sum(axis=1).mean())

    assert least == pytest.approx(entropy(found))
    assert all(entropy(found * factor) > least for factor in (0.9, 1.1))
    assert calibrate(10 * scores, labels)[0] == pytest.approx(10 * found, rel=1e-2)


def test_few_labels_that_are_all_right_do_not_make_certainty() -> None:
    scores = np.array([[4.0, 0.0], [0.0, 4.0]] * 5)
    temperature, _ = calibrate(scores, np.array([0, 1] * 5))
    assert probabilities(scores, temperature).max() == pytest.approx(11 / 12, abs=1e-3)


def test_one_label_a_class_is_a_class_mean_that_is_not_calibrated() -> None:
    features, labels = blobs([1, 1, 1], 0.1)
    fitted = fit_probe(features, labels, 3)
    assert fitted.probe.kind == "class-mean" and not fitted.calibrated
    assert fitted.temperature == UNCALIBRATED and not fitted.held_out.any()
    new, truth = blobs([20, 20, 20], 0.1, seed=1)
    assert (fitted.probe.scores(new).argmax(axis=1) == truth).all()
    found = estimate(fitted, labels, 3)
    assert found.images == 0 and "predict/cv/top1" not in found.metrics()
    assert "the accuracy is not known" in found.sentences(3)[0]


def test_two_labels_a_class_are_scored_without_themselves() -> None:
    features, labels = blobs([2, 2, 1], 0.8)
    fitted = fit_probe(features, labels, 3)
    assert fitted.probe.kind == "class-mean" and fitted.calibrated
    assert fitted.held_out.tolist() == [True] * 4 + [False]
    unit = unit_rows(features, torch.float64)
    for image, other in {0: 1, 1: 0, 2: 3, 3: 2}.items():
        mean = np.delete(unit.numpy(), image, axis=0).mean(axis=0)
        pair = normalize(unit.numpy()[[image, other]] - mean)
        assert fitted.scores[image, labels[image]] == pytest.approx(float(pair[0] @ pair[1]))


def test_warnings_name_a_classifier_that_is_no_better_than_the_majority() -> None:
    def found(right: int) -> list[str]:
        labels = np.array([0] * 20 + [1] * 10)
        predicted = np.where(np.arange(30) < right, labels, 1 - labels)
        probe = _Problem(*blobs([3, 3], 1.0)).fit(None)
        fitted = FittedProbe(probe, 1.0, True, np.ones(30, bool), np.zeros((30, 2)), predicted)
        return estimate(fitted, labels, 2).sentences(30)

    assert "estimated from 30 labels: 66.7 % right, 95 % interval 48.8 to 80.8" in found(20)[0]
    assert "chance 50.0 %, always the most frequent class 66.7 %" in found(20)[0]
    assert "warning: that is no better" in found(20)[1]
    assert "warning: that may be no better" in found(23)[1]
    assert len(found(29)) == 1


def test_distances_are_to_the_nearest_other_image() -> None:
    unit = unit_rows(torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [-3.0, 0.0]]), torch.float32)
    half = 1 - 0.5**0.5
    assert own_distances(unit) == pytest.approx([half, half, half, 1.0], abs=1e-6)
    assert nearest_distances(unit[3:], unit[:3]) == pytest.approx([1.0], abs=1e-6)
    assert threshold_of(np.array([1.0, 2.0, 3.0, 4.0]), 0.5) == 3.0
    assert threshold_of(np.array([1.0, 2.0, 3.0, 4.0]), 1.0) == 4.0


def test_regression_is_chosen_where_class_means_fail() -> None:
    generator = np.random.default_rng(0)  # classes that differ in one quiet feature beside loud ones
    labels = np.repeat([0, 1], 60)
    noise = generator.normal(size=(120, 20)) * np.r_[0.05, np.full(19, 3.0)]
    features = torch.from_numpy(noise + np.outer(labels, np.r_[0.5, np.zeros(19)])).float()
    assert fit_probe(features, labels, 2).probe.kind == "logistic"


def test_few_labels_of_many_classes_are_fitted_without_a_warning() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 4, 5])
    features = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit_probe(features, labels, 6).held_out.sum() == 9


def test_the_choice_is_not_repeated_where_labels_and_classes_are_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels = np.repeat(np.arange(4), 5)
    features = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    repeated: list[int] = []
    nested = probe._nested

    def counted(*arguments: Any) -> np.ndarray:
        repeated.append(1)
        return nested(*arguments)

    monkeypatch.setattr(probe, "_nested", counted)
    monkeypatch.setattr(probe, "NESTED_CELLS", 79)
    assert fit_probe(features, labels, 4).held_out.all() and not repeated
    monkeypatch.setattr(probe, "NESTED_CELLS", 80)
    assert fit_probe(features, labels, 4).held_out.all() and repeated == [1]
