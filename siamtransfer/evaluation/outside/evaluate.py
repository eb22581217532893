"""The outside evaluator: one head on frozen features, its calibration, and its scores on unknown images.

Legend: N samples, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from siamtransfer.data.imageset import fingerprint_of_arrays
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.frozen_model import (
    LabelledFeatures,
    features_of,
    labelled_features,
    open_frozen_model,
)
from siamtransfer.evaluation.knn.evaluate import possible_ks
from siamtransfer.evaluation.linear.logistic import LinearClassifier, fit_logistic, probe, split_by_class
from siamtransfer.evaluation.linear.rows import Rows, place
from siamtransfer.evaluation.linear.splits import TEST_FRACTION, TestSplit, number_classes, set_aside
from siamtransfer.evaluation.outside.config import CLEAN, HELD_OUT, OutsideConfig
from siamtransfer.evaluation.outside.detectors import SCORES, Detectors, principal_dimensions
from siamtransfer.evaluation.outside.sets import OutsideSet, features_of_set, open_outside, outside_files
from siamtransfer.evaluation.remarks import add_remarks, remarks_on
from siamtransfer.features.extract import Features
from siamtransfer.metrics.calibration import probability_metrics
from siamtransfer.metrics.separation import separation_metrics, shares_above
from siamtransfer.metrics.temperature import calibrate, probabilities
from siamtransfer.records.result import Result
from siamtransfer.records.sample_values import SampleValues
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say
from siamtransfer.utils.text import first_few, printable

HELD_OUT_FRACTION = 0.1
"""Of every class of train, by which the strength and the temperature are chosen."""
FEW = 200
"""Held-out images below which the temperature is remarked on."""
ONE_LABEL = "outside needs one label an image, and these images have several"
MOST_FEATURES = 8192
"""The covariance of so many takes half a GiB, and its axes minutes."""


def evaluate(config: OutsideConfig, runtime: Runtime) -> Result | None:
    """Accuracy and calibration of the head, and how well each score tells the unknown images of each set from
    the test images; None on all ranks but the first.

    Raises:
        UserError: the labels or the sets do not suit, or whatever reading checkpoint, images or files finds.
    """
    data, sets = _open(config, runtime)
    if not runtime.is_main:
        return None
    train, test = _train_and_test(data, config)
    held_out: dict[str, OutsideSet] = {}
    if config.hold_out:
        train, test, held_out[HELD_OUT] = _hold_out(train, test, data, config.hold_out)
    sets |= held_out
    y, split = _number_classes(train, test)
    ks, remarks = possible_ks([config.k], len(y))
    remarks += remarks_on(train, test, "standardised" if config.standardise else "logistic")
    remarks += [remark for each in sets.values() for remark in each.remarks]
    remarks += _remarks_on_covariance(train, len(split.values))
    rows, y = place(train.tensor, runtime.device), y.to(runtime.device)
    head = _fit_head(rows, y, config)
    remarks += head.remarks
    protocol = {**data.protocol, **head.protocol, **_choices(config, ks[0], train.tensor.shape[1])}
    protocol |= {"train_images": len(train.features), "test_images": len(test.features)}
    protocol |= {"outside": {name: each.facts for name, each in sets.items()}}
    add_remarks(protocol, remarks)
    prints = {"outside_fingerprint": {name: each.fingerprint for name, each in sets.items()}}
    scored = _Scored(
        config, data.provenance | prints, protocol, head, Detectors.fit(rows, y, head.classifier, ks[0])
    )
    return scored.result(split, sets, runtime)


def _open(config: OutsideConfig, runtime: Runtime) -> tuple[LabelledFeatures, dict[str, OutsideSet]]:
    """The features of the known images and of the outside sets. All images are opened before any is
    computed."""
    if config.feature_files:
        data = labelled_features(config.checkpoint, config, runtime)
        _check_features(data)
        return data, outside_files(config, data.train.features.shape[1])
    model = open_frozen_model(config.checkpoint, config, runtime)
    if model.train.labels is not None and model.train.labels.ndim == 2:
        raise UserError(ONE_LABEL)
    for word in config.hold_out:
        _class_number(word, model.train.classes, set(range(len(model.train.classes))))
    opened = open_outside(config, model)
    data = features_of(model)
    _check_features(data)
    return data, {name: features_of_set(name, *opened[name], model) for name in opened}


def _check_features(data: LabelledFeatures) -> None:
    """Raises UserError where there are several labels an image, or too many features."""
    if data.train.labels is None or data.train.labels.ndim == 2:
        raise UserError(ONE_LABEL)
    width = data.train.features.shape[1]
    if width > MOST_FEATURES:
        raise UserError(
            f"outside takes up to {MOST_FEATURES:,} features, for it inverts their covariance, and these are "
            f"{width:,}: choose other --layers, or for raw pixels a smaller --crop"
        )


def _train_and_test(data: LabelledFeatures, config: OutsideConfig) -> tuple[Features, Features]:
    """Both parts; where there is no test part, a fifth of train is set aside."""
    if data.test is not None:
        return data.train, data.test
    train, test = set_aside(data.train, config.seed)
    data.protocol |= {"test": f"{TEST_FRACTION:.0%} of train"}
    return train, test


def _hold_out(
    train: Features, test: Features, data: LabelledFeatures, words: Sequence[str]
) -> tuple[Features, Features, OutsideSet]:
    """Train and test without some classes, and the test images of these.

    Raises:
        UserError: there is no such class, or it has no test image.
    """
    assert train.labels is not None and test.labels is not None
    names = data.images[0].classes if data.images else ()
    present = set(torch.unique(train.labels).tolist())
    labels = [_class_number(word, names, present) for word in words]
    if len(set(labels)) < len(labels):
        raise UserError("--hold-out names one class twice")
    unknown = torch.tensor(labels)
    in_train, in_test = torch.isin(train.labels, unknown), torch.isin(test.labels, unknown)
    for word, label in zip(words, labels, strict=True):
        if not bool((test.labels == label).any()):
            raise UserError(f"--hold-out {printable(word)}: no test image has this class")
    features = test.tensor[in_test]
    facts = {"set": "test images of the held-out classes", "images": len(features), "classes": sorted(words)}
    fingerprint = fingerprint_of_arrays(text="\n".join(sorted(words)))  # that of test is in the record, too
    return _rows(train, ~in_train), _rows(test, ~in_test), OutsideSet(features, facts, fingerprint)


def _rows(features: Features, chosen: Tensor) -> Features:
    assert features.labels is not None
    return Features(features.tensor[chosen], features.labels[chosen])


def _class_number(word: str, names: Sequence[str], present: set[int]) -> int:
    """The label of a class by its name or, without names, its number."""
    if word in names:
        label = names.index(word)
        if label in present:
            return label
    elif not names and word.isdecimal() and int(word) in present:
        return int(word)
    known = [printable(name) for name in names] or [str(label) for label in sorted(present)]
    raise UserError(
        f"--hold-out {printable(word)}: train has no image of such a class (there are {first_few(known)})"
    )


def _number_classes(train: Features, test: Features) -> tuple[Tensor, TestSplit]:
    """See `number_classes`.

    Raises:
        UserError: train has one class, classes of one image alone, or lacks classes of test.
    """
    assert train.labels is not None
    y, split = number_classes(train.labels, test)
    absent = int((split.labels < 0).sum())
    if absent:
        raise UserError(
            f"{absent} test images are of classes that train does not have, so they are not known: take "
            "them out of test, or add train images of these classes"
        )
    if int(torch.bincount(y).max()) < 2:
        raise UserError(
            "no class has two images in train, so nothing can be held out to choose the temperature by"
        )
    return y, split


def _remarks_on_covariance(train: Features, classes: int) -> list[str]:
    images, width = train.features.shape
    if images - classes >= width:
        return []
    return [
        f"{images} train images of {classes} classes do not determine the covariance of {width} features: "
        "the distances of mahalanobis and relative_mahalanobis leave out directions in which train is flat"
    ]


@dataclass(frozen=True)
class _Head:
    """The classifier on all of train, the temperature that held-out images choose, and remarks on it."""

    classifier: LinearClassifier
    temperature: float
    protocol: dict[str, Any]
    remarks: list[str]


def _fit_head(train: Rows, y: Tensor, config: OutsideConfig) -> _Head:
    """The head of `linear --protocol logistic`. Its temperature is that of a head of the same strength on
    nine tenths of train, chosen on the last tenth (Guo et al. 2017, section 4.2)."""
    chosen = probe(train, y, strengths=config.strengths, standardise=config.standardise, seed=config.seed)
    strength = chosen.classifier.strength
    fitted, held_out = split_by_class(y, HELD_OUT_FRACTION, config.seed)
    partial = fit_logistic(train.select(fitted), y[fitted], strength, standardise=config.standardise)
    scores = partial.scores(train.select(held_out)).cpu().numpy()
    temperature, _ = calibrate(scores, y[held_out].cpu().numpy())
    protocol = {
        "classifier": "multinomial logistic regression, L-BFGS",
        "standardised": config.standardise,
        "strengths": list(config.strengths),
        "chosen_strength": strength,
        "chosen_on": "a held-out tenth of train",
        "held_out_top1": {f"{c:.4g}": value for c, value in chosen.held_out.items()},
        "temperature": "by the cross-entropy of a held-out tenth of train, for a head on the rest",
    }
    few = (
        []
        if len(held_out) >= FEW
        else [
            f"the temperature is chosen on {len(held_out)} held-out images of train, which are few: scaled "
            "confidences may be worse than plain ones"
        ]
    )
    return _Head(chosen.classifier, temperature, protocol, few)


def _choices(config: OutsideConfig, k: int, width: int) -> dict[str, Any]:
    return {
        "scores": list(SCORES),
        "k": k,
        "vim_subspace": "1000 dimensions of 2048 features or more, 512 of 768 or more, else half",
        "chosen_vim_dimensions": principal_dimensions(width),
        "unknown_classes": sorted(config.hold_out),
        "measured_set": CLEAN,
        "interval": "bootstrap over images, 95 %",
        "resamples": config.resamples,
        "seed": config.seed,
    }


@dataclass(frozen=True)
class _Scored:
    """What the result is made of."""

    config: OutsideConfig
    provenance: dict[str, Any]
    protocol: dict[str, Any]
    head: _Head
    detectors: Detectors

    def result(self, split: TestSplit, sets: dict[str, OutsideSet], runtime: Runtime) -> Result:
        """The numbers of the head on the test images, and those of each set, which also have a result of
        their own beside it."""
        test = place(split.features, runtime.device)
        logits = self.head.classifier.scores(test)
        predicted = split.score("linear", logits)
        metrics = {
            f"outside/{name.replace('linear/ci95', 'linear/top1/ci95')}": value
            for name, value in split.metrics.items()
        }
        say(f"the head is right for {metrics['outside/linear/top1']:.2f} % of {len(predicted):,} test images")
        metrics |= self._calibration(logits.cpu().numpy(), split.labels.cpu().numpy())
        known, beside = self.detectors.scores(test), {}
        for name, each in sets.items():
            beside[name] = self._one_set(name, each, known, runtime)
            metrics |= beside[name].metrics
        metrics |= _means(metrics, list(sets))
        predictions = split.predictions({"linear": predicted})
        return Result("outside", metrics, self.protocol, self.provenance, predictions, beside)

    def _calibration(self, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """The errors of calibration as the head is, and with its temperature."""
        metrics = {"outside/calibration/temperature": self.head.temperature}
        for name, temperature in (("plain", 1.0), ("scaled", self.head.temperature)):
            p = probabilities(logits, temperature)
            found = probability_metrics(p, labels, resamples=self.config.resamples, seed=self.config.seed)
            metrics |= {f"outside/calibration/{name}/{key}": value for key, value in found.items()}
        plain, scaled = (metrics[f"outside/calibration/{name}/ece"] for name in ("plain", "scaled"))
        say(
            f"its confidences are off by {plain:.2f} points, and by {scaled:.2f} with the temperature "
            f"{self.head.temperature:.3g}"
        )
        return metrics

    def _one_set(
        self, name: str, outside: OutsideSet, known: dict[str, np.ndarray], runtime: Runtime
    ) -> Result:
        """The numbers of one set, with a value an image for each score: of an unknown image the share of the
        test images that look more known, of a test image the share of the unknown ones that look less known.
        The mean of either is the AUROC."""
        unknown = self.detectors.scores(place(outside.features, runtime.device))
        metrics: dict[str, float] = {}
        for score in SCORES:
            found = separation_metrics(
                known[score], unknown[score], resamples=self.config.resamples, seed=self.config.seed
            )
            metrics |= {f"outside/{name}/{score}/{key}": value for key, value in found.items()}
        shares = {score: _shares(known[score], unknown[score]) for score in SCORES}
        numbers = ", ".join(f"{score} {metrics[f'outside/{name}/{score}/auroc']:.1f}" for score in SCORES)
        say(f"{name}: AUROC in % by {numbers}")
        protocol = {**self.protocol, "outside": {name: outside.facts}, "measured_set": name}
        provenance = self.provenance | {"outside_fingerprint": outside.fingerprint}
        sides = np.repeat([0, 1], [len(outside.features), len(known[SCORES[0]])])
        kept = SampleValues(np.arange(len(sides)), shares, sides=sides)
        return Result("outside", metrics, protocol, provenance, kept)


def _shares(known: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """float64[N + P]: of each of N unknown images the share of the known ones above it, then of each of P
    known ones the share of the unknown ones below it; see `shares_above`."""
    return np.concatenate([shares_above(known, unknown), shares_above(-unknown, -known)])


def _means(metrics: dict[str, float], sets: Sequence[str]) -> dict[str, float]:
    """The mean of AUROC and FPR95 over several sets, each counting alike."""
    if len(sets) < 2:
        return {}
    return {
        f"outside/mean/{score}/{metric}": float(
            np.mean([metrics[f"outside/{name}/{score}/{metric}"] for name in sets])
        )
        for score in SCORES
        for metric in ("auroc", "fpr95")
    }
