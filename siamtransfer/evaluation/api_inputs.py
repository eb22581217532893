"""What users may hand to the functions of api.py, as the evaluators take it.

Legend: N images, D features, C classes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from siamtransfer.backbones.architecture import Architecture
from siamtransfer.backbones.backbone import Backbone
from siamtransfer.checkpoints.assumptions import say_assumptions
from siamtransfer.checkpoints.normalisation import IMAGENET, parse_normalisation
from siamtransfer.checkpoints.options import ReadingOptions
from siamtransfer.checkpoints.read_backbone import ReadBackbone, digest_of, load_backbone
from siamtransfer.checkpoints.reading import ASSUMED, Fact, Reading
from siamtransfer.data.from_objects import MapDataset, from_array, from_images, from_torch
from siamtransfer.data.imageset import ImageSet
from siamtransfer.data.registry import NAMED
from siamtransfer.evaluation.frozen_model import LabelledFeatures
from siamtransfer.features.extract import Features
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say

BackboneSource = str | Path | nn.Module | tuple[Backbone, ReadBackbone]
"""A checkpoint's path or a baseline's name, a module x[N,3,H,W] -> h[N,D], or what `load_backbone`
returns."""
ImageSource = ImageSet | MapDataset | np.ndarray | Sequence[Any]
"""An image set, a torch Dataset, an array uint8[N,H,W,3], or a list of PIL images or paths."""
FeatureSource = Features | tuple[Tensor | np.ndarray, Tensor | np.ndarray]
"""Features, or a pair of features[N,D] and labels int64[N] (or int64[N,C] of 0 and 1)."""


def open_backbone(source: BackboneSource, normalisation: str | None = None) -> tuple[nn.Module, ReadBackbone]:
    """The module, and what is known of it. Of a module that was not read from a checkpoint that is the digest
    of its weights; its images are normalised as said, or by assumption as ImageNet's. Assumptions are logged,
    unless `load_backbone` has done so.

    Raises:
        UserError: the checkpoint cannot be read, or `normalisation` means nothing or contradicts it.
    """
    if isinstance(source, str | Path):
        backbone, read = load_backbone(source, options=ReadingOptions(normalisation=normalisation))
        say_assumptions(read)
        return backbone, read
    module: nn.Module = source[0] if isinstance(source, tuple) else source
    attributes = source[1:] if isinstance(source, tuple) else vars(source).values()
    known = next((value for value in attributes if isinstance(value, ReadBackbone)), None)
    digest = digest_of(module.state_dict())
    if known is not None:  # the weights may have been changed since
        if normalisation is not None and parse_normalisation(normalisation) != known.normalisation:
            raise UserError(
                f"{known.path} was read with another normalisation than {normalisation}: give that to "
                "load_backbone"
            )
        return module, replace(known, digest=digest)
    read = _describe_module(module, digest, normalisation)
    if normalisation is None:
        say(
            f"note: {read.path}: nothing says how its images are normalised; assumed: ImageNet's mean and std"
        )
    return module, read


def _describe_module(module: nn.Module, digest: str, normalisation: str | None) -> ReadBackbone:
    """What is known of a module that was not read from a checkpoint."""
    name = getattr(module, "name", type(module).__name__)
    fact = Fact(IMAGENET, ASSUMED)
    if normalisation is not None:
        fact = Fact(parse_normalisation(normalisation), "normalisation")
    return ReadBackbone(
        path=name,
        state={},
        architecture=Architecture.of(module) if isinstance(module, Backbone) else Architecture(name),
        format="module",
        branch="module",
        branches=("module",),
        reading=Reading(normalisation=fact, channels=Fact("rgb", "the module takes RGB")),
        digest=digest,
        used=0,
        dropped={},
        meta={},
    )


def as_image_set(images: ImageSource) -> ImageSet:
    """The images as an ImageSet.

    Raises:
        UserError: they are none of the kinds of ImageSource.
    """
    if isinstance(images, np.ndarray):
        return from_array(images)
    if hasattr(images, "image") and hasattr(images, "fingerprint"):
        return cast(ImageSet, images)
    if isinstance(images, list | tuple):
        return from_images(images)
    if hasattr(images, "__getitem__") and hasattr(images, "__len__"):
        return from_torch(images)
    raise UserError(
        f"images are of type {type(images).__name__}; give an image set, a torch Dataset, an array "
        "uint8[N,H,W,3], or a list of PIL images or paths"
    )


def describe_features(
    train: FeatureSource, test: FeatureSource | None, *, labelled: bool = True
) -> LabelledFeatures:
    """The features with the protocol and the provenance that the programs record of them.

    Raises:
        UserError: labels are missing, or train and test are not features of one backbone.
    """
    splits = {"train": _as_features(train)} | ({} if test is None else {"test": _as_features(test)})
    if labelled and any(features.labels is None for features in splits.values()):
        raise UserError("the features have no labels: give those of a labelled set, or (features, labels)")
    _require_one_backbone(list(splits.values()))
    first = splits["train"].origin
    protocol: dict[str, Any] = {
        "test": "leave-one-out on train",
        "test_images": len(splits["train"].features),
    }
    provenance: dict[str, Any] = {**first.backbone} if first else {}
    for name, features in splits.items():
        origin = features.origin
        protocol |= {
            name: origin.images if origin else "features in memory",
            f"{name}_images": len(features.features),
        }
        if origin:
            provenance[f"{name}_fingerprint"] = origin.fingerprint
        else:
            provenance[f"{name}_digest"] = _digest_of_features(features)
    if first:
        dataset = first.images.rpartition("/")[0]
        protocol |= first.settings | ({"metric": NAMED[dataset].metric} if dataset in NAMED else {})
        provenance.setdefault("test_fingerprint", None)
    return LabelledFeatures(splits["train"], splits.get("test"), protocol, provenance)


def _as_features(source: FeatureSource) -> Features:
    if isinstance(source, Features):
        return source
    values, labels = source
    features = torch.as_tensor(values).float()
    y = torch.as_tensor(labels).long()
    if features.ndim != 2 or y.ndim not in (1, 2) or len(y) != len(features):
        raise UserError(
            f"features{list(features.shape)} and labels{list(y.shape)} do not go together: [N,D] and [N] (or "
            "[N,C]) are needed"
        )
    return Features(features, y)


def _require_one_backbone(splits: Sequence[Features]) -> None:
    """Raises UserError where the widths, the weights or the settings of the features differ."""
    first, last = splits[0], splits[-1]
    if first.features.shape[1] != last.features.shape[1]:
        raise UserError(
            f"train has features of width {first.features.shape[1]} and test of {last.features.shape[1]}: "
            "they are not of one backbone"
        )
    if first.labels is not None and last.labels is not None and first.labels.ndim != last.labels.ndim:
        raise UserError("train and test have labels of different kinds: [N] in one and [N,C] in the other")
    if first.origin and last.origin:
        networks = [
            (origin.backbone["weights_digest"], origin.backbone["architecture"])
            for origin in (first.origin, last.origin)
        ]
        if networks[0] != networks[1]:
            raise UserError("train and test are features of different weights: use one backbone for both")
        if first.origin.settings != last.origin.settings:
            raise UserError(
                f"train and test were extracted differently: {first.origin.settings} and "
                f"{last.origin.settings}"
            )


def _digest_of_features(features: Features) -> str:
    return hashlib.sha256(np.ascontiguousarray(features.features).data).hexdigest()
