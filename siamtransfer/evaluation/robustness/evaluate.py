"""The robustness evaluator: one head, fitted to train once, scores the test split, its corrupted versions and
other test sets of the same classes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from siamtransfer.data import ImageSet
from siamtransfer.data.shifted_sets import CORRUPTED as IMAGENET_C
from siamtransfer.data.shifted_sets import IMAGENET_CLASSES
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.frozen_model import FrozenModel, open_frozen_model
from siamtransfer.evaluation.linear.splits import single_labels
from siamtransfer.evaluation.remarks import Use, add_remarks, remarks_on
from siamtransfer.evaluation.robustness.config import CLEAN, CORRUPTED, RobustnessConfig
from siamtransfer.evaluation.robustness.corrupted_images import CorruptedImages
from siamtransfer.evaluation.robustness.corruptions.severities import published_set
from siamtransfer.evaluation.robustness.heads import Head, fit_head
from siamtransfer.evaluation.robustness.scores import TASK, Scored, Versions, score_set
from siamtransfer.evaluation.robustness.shifted import TestSet, open_test_sets
from siamtransfer.evaluation.robustness.split import CleanSplit, clean_split
from siamtransfer.evaluation.robustness.table import say_set, say_versions
from siamtransfer.evaluation.transform import transform_of_others
from siamtransfer.records.predictions import Kept
from siamtransfer.records.result import Result
from siamtransfer.utils.log import say


@dataclass(frozen=True)
class _Scorer:
    """A backbone with its head. `values` int64[K] are the labels of train, each once."""

    model: FrozenModel
    head: Head
    values: Tensor

    def __call__(
        self, name: str, images: ImageSet, labels: np.ndarray, *, masked: bool = False
    ) -> Scored | None:
        """What the head says of images with labels int64[Q]; None on all ranks but the first."""
        transform = transform_of_others(self.model.transform, images.image_size)
        model = replace(self.model, transform=transform)
        features = model.features(images, [self.model.config.layers]).tensor
        return self.of_features(name, features, torch.from_numpy(labels), masked=masked)

    def of_features(
        self, name: str, features: Tensor, labels: Tensor, *, masked: bool = False
    ) -> Scored | None:
        """The same for their features float32[Q, D]."""
        allowed = torch.isin(self.values, labels) if masked else None
        scores = self.head.scores(features, allowed)
        return None if scores is None else score_set(name, scores, labels, self.values)


@dataclass(frozen=True)
class _Part:
    """The result of one set but for what the results of all have in common."""

    metrics: dict[str, float]
    kept: Kept
    fingerprint: str
    protocol: dict[str, Any]
    provenance: dict[str, Any] = field(default_factory=dict)


def evaluate(config: RobustnessConfig, runtime: Runtime) -> Result | None:
    """Top-1 on every test set, and what the corrupted versions of the test split lose of it; None on all
    ranks but the first. The results of the further sets are beside that of the test split.

    Raises:
        UserError: the images do not suit, or whatever reading checkpoint or images finds.
    """
    model = open_frozen_model(config.checkpoint, config, runtime)
    single_labels(model.train)
    if config.corruption_names:
        CorruptedImages(model.train, model.transform, config.corruption_names[0], 1)  # refused early
    sets = open_test_sets(config, model)
    split = clean_split(model, config.seed)
    assert split.train.labels is not None and split.test.labels is not None
    values, y = torch.unique(split.train.labels, return_inverse=True)
    head = fit_head(split.train.tensor, y, config, runtime)
    scorer = _Scorer(model, head, values)
    clean = scorer.of_features(CLEAN, split.test.tensor, split.test.labels)
    if clean is not None:
        say_set(CLEAN, clean.metrics, len(clean.right))
    parts: dict[str, _Part | None] = {}
    if config.corruption_names:
        parts[CORRUPTED] = _corrupted(scorer, split, clean, config)
    for test_set in sets:
        parts[test_set.name] = (_versions if test_set.name == IMAGENET_C else _single)(scorer, test_set)
    model.require_untouched()
    with collectives.own_pace("fingerprinting the images"):
        provenance = model.provenance
    if clean is None:
        return None
    protocol = _protocol(scorer, split, config)
    return _result(clean, {name: part for name, part in parts.items() if part}, protocol, provenance)


def _corrupted(
    scorer: _Scorer, split: CleanSplit, clean: Scored | None, config: RobustnessConfig
) -> _Part | None:
    """The corrupted versions of the test images, whose features are not kept unless that is asked for."""
    model = scorer.model
    cache = config.cache if config.cache_corrupted else "none"
    streamed = replace(
        scorer,
        model=replace(
            model, transform=replace(model.transform, resize=None), config=replace(config, cache=cache)
        ),
    )
    assert split.test.labels is not None
    right = {}
    for name in config.corruption_names:
        for severity in sorted(config.severities):
            images = CorruptedImages(split.images, model.transform, name, severity, config.seed)
            scored = streamed(f"{CORRUPTED}/{name}/severity={severity}", images, split.test.labels.numpy())
            if scored is not None:
                right[name, severity] = scored.right
    if clean is None:
        return None
    versions = Versions(CORRUPTED, right, clean.right)
    metrics = versions.metrics()
    say_versions(versions, metrics)
    protocol = {
        "corruptions": config.corruption_names,
        "severities": versions.severities,
        "corruption_numbers": f"of {published_set(model.transform.crop)}",
        "corrupted": "the crop that the network sees, its values rounded down, and not compressed afterwards",
    }
    return _Part(metrics, versions.values(), split.images.fingerprint, protocol)


def _versions(scorer: _Scorer, test_set: TestSet) -> _Part | None:
    """A set of versions that lies on the disk, which is ImageNet-C."""
    right = {}
    for setting, images in test_set.versions.items():
        scored = scorer(setting, images, test_set.labels, masked=test_set.masked)
        if scored is not None:
            _, corruption, severity = setting.split("/")
            right[corruption, int(severity.partition("=")[2])] = scored.right
    if not right:
        return None
    versions = Versions(test_set.name, right)
    metrics = versions.metrics()
    error = versions.mean_corruption_error()
    if error is not None and len(np.unique(test_set.labels)) == IMAGENET_CLASSES:
        metrics[f"{TASK}/{test_set.name}/mCE"] = error
    else:
        say(
            f"{test_set.name}: mCE is not computed, for it needs all 1000 classes, 15 corruptions and five "
            "severities (--severities 1 2 3 4 5)"
        )
    say_versions(versions, metrics)
    part = _part(metrics, versions.values(), test_set, scorer.model)
    made = {"corruptions": versions.corruptions, "severities": versions.severities}
    return replace(part, protocol=part.protocol | made)


def _single(scorer: _Scorer, test_set: TestSet) -> _Part | None:
    """A set of one version."""
    (images,) = test_set.versions.values()
    scored = scorer(test_set.name, images, test_set.labels, masked=test_set.masked)
    if scored is None:
        return None
    say_set(test_set.name, scored.metrics, len(scored.right))
    return _part(scored.metrics, scored.predictions, test_set, scorer.model)


def _part(metrics: dict[str, float], kept: Kept, test_set: TestSet, model: FrozenModel) -> _Part:
    sizes = {images.image_size for images in test_set.versions.values()}
    protocol = {
        "transform": asdict(transform_of_others(model.transform, *sizes)),
        "test": test_set.name,
        "test_images": len(test_set.labels),
        "absent_classes": "masked" if test_set.masked else "kept",
        **test_set.left_out,
    }
    remarks = {"set_remarks": test_set.remarks} if test_set.remarks else {}
    return _Part(metrics, kept, test_set.fingerprint, protocol, remarks)


def _protocol(scorer: _Scorer, split: CleanSplit, config: RobustnessConfig) -> dict[str, Any]:
    """What the results of all sets have in common."""
    use: Use = "cosine" if config.head == "knn" else "standardised" if config.standardise else "logistic"
    protocol = {
        **scorer.model.protocol,
        **split.protocol,
        **scorer.head.protocol,
        "seed": config.seed,
        "interval": "percentile bootstrap over images, 95 %",
    }
    add_remarks(protocol, [*scorer.head.remarks, *remarks_on(split.train, split.test, use)])
    return protocol


def _result(
    clean: Scored, parts: dict[str, _Part], protocol: dict[str, Any], provenance: dict[str, Any]
) -> Result:
    """The result of the test split, with all numbers, and beside it that of each further set."""
    beside, metrics = {}, dict(clean.metrics)
    for name, part in parts.items():
        metrics |= part.metrics
        own = {**protocol, "measured_set": name, **part.protocol}
        if "unreadable" in part.protocol:
            own["unreadable"] = protocol["unreadable"] | part.protocol["unreadable"]
        images = {"test_fingerprint": part.fingerprint}
        beside[name] = Result(TASK, part.metrics, own, provenance | part.provenance | images, part.kept)
    corrupted = parts[CORRUPTED].protocol if CORRUPTED in parts else {}
    others = {name: part.fingerprint for name, part in parts.items() if name != CORRUPTED}
    return Result(
        TASK,
        metrics,
        {**protocol, "measured_set": CLEAN, **corrupted},
        {**provenance, **({"shifted_fingerprint": others} if others else {})},
        clean.predictions,
        beside,
    )
