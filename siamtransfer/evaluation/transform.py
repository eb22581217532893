"""The evaluation transform of a checkpoint, by what it records of its training or its authors state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from siamtransfer.checkpoints.declaration import FORMAT
from siamtransfer.checkpoints.file_format import IMAGENET
from siamtransfer.checkpoints.read_backbone import ReadBackbone
from siamtransfer.features.extract import Transform, evaluation_transform
from siamtransfer.views.config import ViewsConfig


def choose_transform(
    read: ReadBackbone | None, image_size: int | None, *, crop: int | None, resize: int | None
) -> Transform:
    """The evaluation transform of a backbone (None for raw pixels) for images of `image_size` pixels a side
    (None where their sizes differ). Where the authors' own is stated, that is it, with `crop` and `resize` in
    place of its numbers. Otherwise, without `crop` its side is that of the views in pretraining, or of the
    images, or 224; without `resize` see `evaluation_transform`."""
    views = recorded_config(read).get("views")
    view = ViewsConfig.from_dict(views).build().views[0] if views else None
    mean, std = read.normalisation if read else IMAGENET
    stated = read.reading.preprocessing if read else None
    if stated is not None:
        authors = stated.value
        side = crop or authors.size
        shorter = resize or round(side * authors.resize / authors.size)
        return Transform(side, shorter, tuple(mean), tuple(std), authors.interpolation)
    side = crop or (view.size if view else image_size or 224)
    interpolation = view.interpolation if view else "bilinear"
    transform = evaluation_transform(side, image_size, mean, std, interpolation)
    return replace(transform, resize=resize) if resize else transform


def transform_of_others(transform: Transform, image_size: int | None) -> Transform:
    """The transform of images that go with those of `transform`, of `image_size` pixels a side (None where
    their sizes differ): where those are not resized, for their size is that of the crop, others are."""
    if transform.resize is None and image_size != transform.crop:
        return replace(transform, resize=transform.crop)
    return transform


def recorded_config(read: ReadBackbone | None) -> dict[str, Any]:
    """The pretraining configuration that our own checkpoints carry; empty for other files."""
    recorded = read.meta.get("config") if read and read.format == FORMAT else None
    return recorded or {}
