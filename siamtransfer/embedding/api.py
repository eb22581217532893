"""`embed` and `predict` for notebooks and scripts: they print nothing and write no file.

    found = siamtransfer.embed("checkpoint.pth", "my_images")
    lines = siamtransfer.predict("checkpoint.pth", "my_images", labels="few.csv")

Legend: n readable images, D features.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from siamtransfer.backbones.feature_layers import OUTPUT
from siamtransfer.data.sources import Source
from siamtransfer.distributed.runtime import Precision, start_runtime
from siamtransfer.embedding.config import PredictConfig
from siamtransfer.embedding.embed import Listing, embed_all
from siamtransfer.embedding.embedder import Embedder, make_embedder
from siamtransfer.embedding.predict.evaluate import label_all, learn
from siamtransfer.embedding.predict.labelled import open_labels
from siamtransfer.embedding.sources import Part, open_parts
from siamtransfer.embedding.tables.table import Missing
from siamtransfer.evaluation.api import moved
from siamtransfer.evaluation.api_inputs import BackboneSource, open_backbone


@dataclass(frozen=True, eq=False)
class Embedding:
    """The features of all readable images of a source, in the order of its listing.

    Attributes:
        features: float32[n, D].
        paths: n paths, see `siamtransfer.embedding.sources.Part.path`.
        sizes: int64[n, 2]: width and height in pixels.
        classes: n names of classes; None without labels.
        unreadable: the images that have no row.
    """

    features: np.ndarray
    paths: list[str]
    sizes: np.ndarray
    classes: list[str | None] | None
    unreadable: list[Missing]


@dataclass(frozen=True)
class LabelledImage:
    """What `predict` says of an image.

    Attributes:
        label: the name of its class; `given` says that it was given.
        probabilities: by class; None for a given label that was never held out.
        unknown: whether the image is unlike all labelled ones.
        distance: one minus the cosine to the nearest (other) labelled image.
    """

    path: str
    label: str
    given: bool
    probabilities: dict[str, float] | None
    unknown: bool
    distance: float


def embed(
    backbone: BackboneSource,
    images: Source,
    *,
    layers: str = OUTPUT,
    crop: int | None = None,
    resize: int | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    batch_size: int = 256,
    workers: int = 0,
    normalisation: str | None = None,
    **options: Any,
) -> Embedding:
    """The features of every readable image of a source, as `siamtransfer embed` writes them.

    The arguments that are not named here are those of `extract_features`.

    Args:
        backbone: a checkpoint's path, a baseline's name, a module, or what `load_backbone` returns.
        images: whatever `open_dataset` takes: a folder, an archive, a list, one image, an ImageSet.
        options: of `open_dataset`, such as `split`, `root`, `background`.

    Returns:
        `features` float32[n, D], `paths`, `sizes` int64[n, 2] (width, height), `classes` (None without
        labels), and `unreadable`, the images that have no row.

    Raises:
        UserError: the checkpoint or the images cannot be opened, or none can be read.
    """
    parts = open_parts(images, **options)
    made = {"layers": layers, "crop": crop, "resize": resize, "batch": batch_size, "workers": workers}
    with _embedder(backbone, normalisation, parts, device, precision, made) as embedder:
        listing = Listing(parts)
        rows, features = embed_all(embedder, listing)
    labelled = parts[0].images.labels is not None
    return Embedding(
        features,
        [row.path for row in rows],
        np.array([(row.width, row.height) for row in rows], np.int64),
        [row.class_name for row in rows] if labelled else None,
        listing.missing,
    )


def predict(
    backbone: BackboneSource,
    images: str | Path,
    *,
    labels: str | Path,
    labels_root: str | Path | None = None,
    unknown_quantile: float = 0.95,
    seed: int = 0,
    layers: str = OUTPUT,
    crop: int | None = None,
    resize: int | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    batch_size: int = 256,
    workers: int = 0,
    normalisation: str | None = None,
    **options: Any,
) -> list[LabelledImage]:
    """Labels every readable image of a source from a few labels, as `siamtransfer predict` does; the estimate
    of its accuracy goes to the logger `siamtransfer`.

    Args:
        labels: a table of paths and labels, or a folder with a folder for each class.
        labels_root: folder in which the paths of the table begin; None is that of the images.
        unknown_quantile: share of images like the labelled ones that are near enough to be known.
        seed: decides which labelled images are held out together.

    Returns:
        For each image `path`, `label`, whether it was `given`, `probabilities` by class (None for a given
        label that was never held out), whether it is `unknown`, and its `distance` from the nearest labelled
        image.

    Raises:
        UserError: labels, checkpoint or images cannot be used; says why.
    """
    root = None if labels_root is None else str(labels_root)
    labelled = open_labels(str(labels), str(images), root, options)
    parts = open_parts(images, **options)
    made = {"layers": layers, "crop": crop, "resize": resize, "batch": batch_size, "workers": workers}
    with _embedder(backbone, normalisation, [*labelled.parts, *parts], device, precision, made) as embedder:
        config = PredictConfig(checkpoint=embedder.source, unknown_quantile=unknown_quantile, seed=seed)
        learnt = learn(labelled, embedder, config)
        classes = learnt.head.classes
        return [
            LabelledImage(
                row.path,
                classes[said.label],
                said.given,
                None
                if said.probabilities is None
                else dict(zip(classes, said.probabilities.tolist(), strict=True)),
                said.unknown,
                said.distance,
            )
            for row, said in label_all(learnt, embedder, Listing(parts))
        ]


@contextmanager
def _embedder(
    backbone: BackboneSource,
    normalisation: str | None,
    parts: list[Part],
    device: str,
    precision: Precision,
    made: dict[str, Any],
) -> Iterator[Embedder]:
    """The embedder of a backbone, which is afterwards on the device that it was on."""
    module, read = open_backbone(backbone, normalisation)
    with start_runtime(device, precision) as runtime, moved(module, runtime.device):
        yield make_embedder(read.path, module, read, [part.images for part in parts], runtime, **made)
