"""What the diagnostics measure of a checkpoint, a baseline or feature files: features, views, projections.

Legend: N images, q views, D features of the backbone, d of the projector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from siamtransfer.backbones.feature_layers import OUTPUT, FeatureLayers
from siamtransfer.data import ImageSet
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.diagnostics import measures
from siamtransfer.evaluation.diagnostics.config import DiagnoseConfig
from siamtransfer.evaluation.diagnostics.projector import project, read_projector
from siamtransfer.evaluation.diagnostics.representation import Representation
from siamtransfer.evaluation.frozen_model import (
    FrozenModel,
    LabelledFeatures,
    labelled_features,
    open_frozen_model,
)
from siamtransfer.features.augmented import repeat_view, view_features
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.log import say
from siamtransfer.views.channels import recipe_for
from siamtransfer.views.config import ViewsConfig
from siamtransfer.views.view_spec import Recipe

DEFAULT_RECIPE = "simsiam"


@dataclass(eq=False)
class ModelFeatures:
    """The representations of a checkpoint, a baseline or a pair of feature files by their name: `backbone`
    (or the selected layers) and, of our own checkpoints, also `projection`."""

    name: str
    representations: dict[str, Representation]
    protocol: dict[str, Any]
    provenance: dict[str, Any]
    frozen: FrozenModel | None = None
    """The network; None of feature files."""


def extract_checkpoints(config: DiagnoseConfig, runtime: Runtime) -> list[ModelFeatures]:
    """The features of every checkpoint; all files are read and all sets opened before the first is extracted.

    Raises:
        UserError: the checkpoints name different images, or whatever reading checkpoints or images finds.
    """
    models = [open_frozen_model(source, config, runtime) for source in config.checkpoints]
    _require_same_images(models, config)
    recipes = [_view_recipe(model, config.recipe) for model in models]
    projectors = [
        read_projector(model.read) if model.read and config.layers == OUTPUT else None for model in models
    ]
    return [
        _extract_model(model, recipe, projector, config)
        for model, recipe, projector in zip(models, recipes, projectors, strict=True)
    ]


def read_files(config: DiagnoseConfig, runtime: Runtime) -> ModelFeatures:
    """The features of one of two .npz files; see `labelled_features`."""
    return describe_model(labelled_features(None, config, runtime, mapped=True), config)


def describe_model(data: LabelledFeatures, config: DiagnoseConfig) -> ModelFeatures:
    """The train or test features as the representation `backbone`, without views."""
    split = data.train if config.part == "train" else data.test
    assert split is not None
    labels = torch.zeros(len(split.features), dtype=torch.int64) if split.labels is None else split.labels
    sampled = measures.sample(len(split.features), config.sample, config.seed)
    representation = Representation(split.features, labels, sampled, None)
    protocol = {**data.protocol, "recipe": None, "measured": {"backbone": _size(representation)}}
    name = data.protocol[config.part]
    return ModelFeatures(name, {"backbone": representation}, protocol, data.provenance)


def _extract_model(
    model: FrozenModel, recipe: Recipe, projector: nn.Module | None, config: DiagnoseConfig
) -> ModelFeatures:
    """Features of a split and of views of some of its images, and the projections of both."""
    runtime, layers = model.runtime, model.config.layers
    images = model.train if config.part == "train" else model.test
    assert images is not None
    features, views = model.features(images, [layers]), None
    assert features.labels is not None
    if model.backbone is not None and config.images:
        indices = measures.sample(len(images), config.images, config.seed)
        if runtime.is_main:
            say(f"extracting features of {config.views} views of {len(indices)} images by {recipe.name}")
        views = view_features(
            FeatureLayers(model.backbone, [layers]).eval(),
            images,
            repeat_view(recipe, config.views),
            runtime,
            seed=config.seed,
            indices=indices,
            batch=model.config.forward_batch_size,
            workers=model.workers,
        )
    sampled = measures.sample(len(images), config.sample, config.seed)
    representation = Representation(features.features, features.labels, sampled, views)
    representations = {"backbone" if layers == OUTPUT else layers: representation}
    if projector is not None:
        representations["projection"] = _project(projector, representation, runtime)
    protocol = {
        **model.protocol,
        "recipe": recipe.name if views is not None else None,
        "measured": {name: _size(each) for name, each in representations.items()},
    }
    return ModelFeatures(model.source, representations, protocol, model.provenance, model)


def _project(projector: nn.Module, backbone: Representation, runtime: Runtime) -> Representation:
    """The projections of the sampled rows [n, d] and of the views [m, q, d]."""
    h, labels = backbone.sample()
    z, views = project(projector, h, runtime.device), None
    if backbone.views is not None:
        flat = project(projector, backbone.views.flatten(0, 1), runtime.device)
        views = flat.view(*backbone.views.shape[:2], -1)
    return Representation(z, labels, np.arange(len(z)), views)


def _require_same_images(models: Sequence[FrozenModel], config: DiagnoseConfig) -> None:
    """Raises UserError where a set has no such split, or two checkpoints name different images in their
    records; with --invariance, of either split, for both are used."""
    for model in models:
        if config.part == "test" and model.test is None:
            raise UserError(f"{model.train.name} has no test part: only --part train can be diagnosed")
        for part in ("train", "test") if config.invariance else (config.part,):
            images, first = (m.train if part == "train" else m.test for m in (model, models[0]))
            prints = [None if each is None else each.fingerprint for each in (images, first)]
            if prints[0] != prints[1]:
                raise UserError(
                    f"{models[0].source} is measured on {_described(first)} and {model.source} on "
                    f"{_described(images)}, which are not the same: name one set with --data.name (and "
                    "--data.size, --data.count, --data.test-split)"
                )


def _described(images: ImageSet | None) -> str:
    return "no test images" if images is None else f"{len(images)} images of {images.name}/{images.split}"


def _size(representation: Representation) -> dict[str, Any]:
    """The numbers of rows, features and views, for the record."""
    rows, dim = representation.rows.shape
    views = None if representation.views is None else list(representation.views.shape[:2])
    return {"rows": rows, "dim": dim, "sampled": len(representation.sampled), "images and views": views}


def _view_recipe(model: FrozenModel, name: str | None) -> Recipe:
    """What makes the views: the recipe of that name, or that of the checkpoint's record, or the default, at
    the size and with the normalisation of the evaluation."""
    config = (model.read.meta.get("config") or {}) if model.read else {}
    recorded, rgb = config.get("views") or {}, config.get("data", {}).get("rgb")
    if name or not recorded:
        views = ViewsConfig(name or DEFAULT_RECIPE)
    else:
        views = ViewsConfig.from_dict(recorded)
    transform = model.transform
    views = replace(views, size=transform.crop, mean=None, std=None)
    return recipe_for(views, len(transform.mean), rgb, (transform.mean, transform.std))
