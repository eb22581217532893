"""Makes a map of images: features, a layout, neighbours, thumbnails, and how far the layout can be trusted.

Legend: N images of the map, K neighbours.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from siamtransfer.data.imageset import ImageSet
from siamtransfer.data.subset import Subset
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.diagnostics.measures import sample
from siamtransfer.evaluation.frozen_model import FrozenModel, open_frozen_model
from siamtransfer.evaluation.knn.search import search
from siamtransfer.evaluation.labelled_images import names_of
from siamtransfer.evaluation.remarks import add_remarks, remarks_on_features
from siamtransfer.features.cache import feature_cache
from siamtransfer.image_map.config import MapConfig
from siamtransfer.image_map.image_map import ImageMap
from siamtransfer.image_map.layout import LayoutSettings, lay_out
from siamtransfer.image_map.quality import layout_quality, typicality
from siamtransfer.image_map.thumbnails import make_thumbnails
from siamtransfer.metrics.unit_rows import unit_rows
from siamtransfer.records.result import Result
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import digest_of_file
from siamtransfer.utils.log import say
from siamtransfer.utils.text import printable


def evaluate(config: MapConfig, runtime: Runtime) -> Result | None:
    """Makes and writes the map; the metrics say what the layout keeps. None on all ranks but the first.

    Raises:
        UserError: the set has no such split, the file cannot be written, or whatever reading checkpoint or
            images finds.
        UnreadableImage: an image cannot be read.
    """
    model = open_frozen_model(config.checkpoint, config, runtime)
    images = choose_part(model, config.part)
    indices = sample(len(images), config.count, config.seed)
    features = _features_of(model, images, indices)
    if not runtime.is_main:
        return None
    assert config.out is not None
    remarks = remarks_on_features(features, images.split, "measures")
    made = make_map(model, images, indices, features, config)
    made.write(config.out)
    say(f"wrote {printable(config.out)}: {len(made)} images of {images.name}/{images.split}")
    set_facts = made.facts["set"]
    protocol = {
        "set": f"{images.name}/{images.split}",
        "images": len(images),
        "drawn": len(made),
        "draw": "all" if len(made) == len(images) else "at random, every image alike",
        "seed": config.seed,
        "neighbours": made.neighbours.shape[1],
        "thumbnail_side": made.thumbnails.side,
        "layout": made.facts["layout"],
        **made.facts["features"],
        **model.left_out,
    }
    add_remarks(protocol, remarks)
    provenance = {
        **made.facts["backbone"],
        "fingerprint": set_facts["fingerprint"],
        **names_of(images),
        "out": str(config.out),
        "out_digest": digest_of_file(config.out),
    }
    quality = {f"map/{name}": value for name, value in made.facts["quality"].items()}
    return Result("map", {"map/images": float(len(made)), **quality}, protocol, provenance)


def choose_part(model: FrozenModel, part: str | None) -> ImageSet:
    """The train or test images of a model; None is test where there is one.

    Raises:
        UserError: the set has no test part.
    """
    if part == "train" or (part is None and model.test is None):
        return model.train
    if model.test is None:
        raise UserError(f"{model.train.name} has no test part: only --part train can be mapped")
    return model.test


def make_map(
    model: FrozenModel, images: ImageSet, indices: np.ndarray, features: Tensor, config: MapConfig
) -> ImageMap:
    """The map of the images int64[N] `indices`, which have the features float[N,D].

    Raises:
        UnreadableImage: an image cannot be read.
    """
    shown = Subset(images, indices)
    labels = _single_labels(shown.labels, len(shown))
    rows = unit_rows(features, torch.float32)
    x = rows.numpy()
    settings = LayoutSettings(config.layout, config.perplexity, config.seed)
    used = settings.of(len(shown))
    say(f"laying out {len(shown)} images by {used.method}")
    for name, asked, most in (
        ("--perplexity", settings.perplexity, used.perplexity if used.method == "tsne" else math.inf),
        ("--neighbours", config.neighbours, len(shown) - 1),
    ):
        if asked > most:
            say(f"remark: {name} {asked:g} is more than {len(shown)} images have: {most:g} is taken")
    positions, share = _kept_layout(x, settings, config.cache)
    similarities, neighbours = _neighbours_of(rows, config.neighbours)
    quality = layout_quality(x, positions, neighbours, labels, config.seed)
    say(f"making thumbnails of {len(shown)} images")
    facts = {
        "backbone": {key: model.provenance[key] for key in _BACKBONE},
        "set": {
            "name": images.name,
            "split": images.split,
            "fingerprint": images.fingerprint,
            "images": len(images),
        },
        "features": {
            key: value for key, value in model.protocol.items() if key in ("transform", "layers", "precision")
        },
        "layout": settings.of(len(shown)).as_dict() | {"variance_share": share},
        "quality": quality,
    }
    return ImageMap(
        positions,
        labels,
        neighbours,
        similarities,
        typicality(x, labels),
        indices.astype(np.int64),
        make_thumbnails(shown, config.side, workers=model.workers),
        _class_names(images, labels),
        tuple(_name(shown, row) for row in range(len(shown))),
        facts,
    )


_BACKBONE = ("backbone", "architecture", "format", "branch", "weights_digest", "reading", "assumptions")


def _features_of(model: FrozenModel, images: ImageSet, indices: np.ndarray) -> Tensor:
    """float32[N,D] of the images `indices`: those of all images where these are kept already, or no more."""
    layers = [model.config.layers]
    whole = len(indices) == len(images)
    if whole or collectives.broadcast_object(model.has_kept(images, layers)):
        return model.features(images, layers).tensor[torch.from_numpy(indices)]
    return model.features(Subset(images, indices), layers).tensor


def _kept_layout(x: np.ndarray, settings: LayoutSettings, folder: str | None) -> tuple[np.ndarray, float]:
    """`lay_out`, read from the cache of features where the same layout was made before."""
    cache = feature_cache(folder)
    if cache is None:
        return lay_out(x, settings)
    key = hashlib.sha256(f"{settings.of(len(x)).as_dict()} {x.shape}\n".encode())
    key.update(np.ascontiguousarray(x).data)
    path = cache.folder / f"layout-{key.hexdigest()[:32]}.npy"
    kept = cache.read(path, len(x) + 1)
    if kept is not None:
        return np.array(kept[:-1]), float(kept[-1, 0])
    positions, share = lay_out(x, settings)
    share = float(np.float32(share))
    cache.keep(path, torch.from_numpy(np.vstack([positions, [[share, 0]]]).astype(np.float32)))
    return positions, share


def _neighbours_of(rows: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Similarities float32[N,K] and neighbours int32[N,K]; K is less than k where there are few images."""
    count = len(rows)
    k = min(k, count - 1)
    if k < 1:
        return np.zeros((count, 0), np.float32), np.zeros((count, 0), np.int32)
    cosines, found = search(rows, rows, k, leave_out=torch.arange(count))
    return cosines.float().clamp(-1, 1).numpy(), found.int().numpy()


def _single_labels(labels: np.ndarray | None, count: int) -> np.ndarray:
    """int64[N]: the labels, -1 for an image that has none or several."""
    if labels is None:
        return np.full(count, -1, np.int64)
    if labels.ndim == 1:
        return labels.astype(np.int64)
    return np.where(labels.sum(axis=1) == 1, labels.argmax(axis=1), -1).astype(np.int64)


def _class_names(images: ImageSet, labels: np.ndarray) -> tuple[str, ...]:
    """The names of the classes, numbers where a set names fewer than its labels."""
    count = max(len(images.classes), int(labels.max(initial=-1)) + 1)
    return tuple(images.classes[n] if n < len(images.classes) else str(n) for n in range(count))


def _name(images: ImageSet, row: int) -> str:
    """The path of an image below the folder of its set; of sets in memory the split and the number in it."""
    source: Any = images
    while isinstance(source, Subset):
        source, row = source.images, int(source.indices[row])
    relative = getattr(source, "relative_name", None)
    return printable(relative(row) if relative else source.describe(row).rpartition("/")[2])
