"""The evaluators as functions for notebooks and scripts: features in, results out.

    features = extract_features("checkpoint.pth", images)
    print(knn(train_features, test_features, k=20))

They do not end the process and print nothing; messages go through the logger `siamtransfer`. A result holds
the protocol and the provenance that the program of the same name records.

Legend: N images, D features, C classes.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.feature_layers import OUTPUT
from siamtransfer.checkpoints.file_format import IMAGENET
from siamtransfer.checkpoints.read_backbone import ReadBackbone, digest_of, load_backbone
from siamtransfer.data.from_objects import MapDataset, from_array, from_images, from_torch
from siamtransfer.data.imageset import ImageSet
from siamtransfer.data.registry import NAMED
from siamtransfer.distributed.runtime import Precision, Runtime, start_runtime
from siamtransfer.evaluation.config import EvaluationConfig
from siamtransfer.evaluation.diagnostics.config import DiagnoseConfig
from siamtransfer.evaluation.frozen_model import FrozenModel, LabelledFeatures
from siamtransfer.evaluation.knn.config import KnnConfig, NeighbourMetric
from siamtransfer.evaluation.linear.config import LRS, STRENGTHS, LinearConfig, ProbeOptimizer
from siamtransfer.features.extract import (
    FeatureOrigin,
    Features,
    Transform,
    evaluation_transform,
    extract,
)
from siamtransfer.records.result import Result
from siamtransfer.utils.errors import UserError
from siamtransfer.views.config import ViewsConfig

BackboneSource = str | Path | nn.Module | tuple[Backbone, ReadBackbone]
"""A checkpoint's path or a baseline's name, a module x[N,3,H,W] -> h[N,D], or what `load_backbone`
returns."""
ImageSource = ImageSet | MapDataset | np.ndarray | Sequence[Any]
"""An image set, a torch Dataset, an array uint8[N,H,W,3], or a list of PIL images or paths."""
FeatureSource = Features | tuple[Tensor | np.ndarray, Tensor | np.ndarray]
"""Features, or a pair of features[N,D] and labels int64[N] (or int64[N,C] of 0 and 1)."""


def extract_features(
    backbone_or_source: BackboneSource,
    images: ImageSource,
    *,
    layers: str = OUTPUT,
    crop: int | None = None,
    resize: int | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    batch_size: int = 256,
    workers: int = 0,
) -> Features:
    """Features float32[N, D] of every image in order, with the labels that the set has and their origin.

    Args:
        layers: where they come from, such as `output`, `layer3`, `last4` or several joined by `+`.
        crop: side of the central crop; None is the size of the views in pretraining, or of the images, or
        224.
        resize: length of the shorter side before the crop; None is 8/7 of the crop, and none for images of
            that very size.
        workers: processes that decode.

    Raises:
        UserError: the checkpoint, the images or the layers cannot be used, or a feature is not finite.
        UnreadableImage: an image cannot be read.
    """
    backbone, read = open_backbone(backbone_or_source)
    image_set = as_image_set(images)
    transform = choose_transform(read, image_set.image_size, crop=crop, resize=resize)
    with start_runtime(device, precision) as runtime, _moved(backbone, runtime.device):
        config = EvaluationConfig(layers=layers, forward_batch_size=batch_size, cache="none")
        if isinstance(backbone, Backbone):
            model = FrozenModel(
                read.path, backbone, read, image_set, None, transform, runtime, config, workers
            )
            return model.features(image_set, [layers])
        if layers != OUTPUT:
            raise UserError(f"a module of one's own has no layer {layers!r}: leave layers out")
        features = extract(backbone, image_set, transform, runtime, batch=batch_size, workers=workers)
        labels = None if image_set.labels is None else torch.from_numpy(np.array(image_set.labels))
        return Features(features, labels, _origin(read, image_set, transform, runtime))


def knn(
    train: FeatureSource,
    test: FeatureSource | None = None,
    *,
    k: int | Sequence[int] = 20,
    temperature: float | Sequence[float] = 0.07,
    metric: NeighbourMetric = "cosine",
    device: str = "auto",
) -> Result:
    """Accuracies of weighted k-nearest-neighbour voting (Wu et al. 2018); mAP for several labels an image.

    Without `test` every image of `train` is scored against all others (leave-one-out).

    Raises:
        UserError: the features are not of one backbone, or there are fewer of them than k.
    """
    from siamtransfer.evaluation.knn.evaluate import score_features

    ks = [k] if isinstance(k, int) else list(k)
    temperatures = [temperature] if isinstance(temperature, int | float) else list(temperature)
    config = KnnConfig(k=ks, temperature=temperatures, metric=metric, device=device)
    config.check()
    data = describe_features(train, test)
    with start_runtime(device, "float32") as runtime:
        return _on_every_rank(score_features(data, config, runtime))


def linear_probe(
    train: FeatureSource,
    test: FeatureSource | None = None,
    *,
    protocol: Literal["logistic", "sweep"] = "logistic",
    strengths: Sequence[float] = STRENGTHS,
    lrs: Sequence[float] = LRS,
    optimizers: Sequence[ProbeOptimizer] = ("sgd",),
    standardise: bool = False,
    seed: int = 0,
    device: str = "auto",
) -> Result:
    """Accuracies of a linear classifier that a held-out tenth of `train` chooses; mAP for several labels an
    image. Without `test` a fifth of every class of `train` is set aside as one.

    Args:
        protocol: `logistic` is L-BFGS at every one of `strengths` (scikit-learn's C); `sweep` trains
            classifiers of every one of `lrs` and `optimizers` at once.
        standardise: logistic: give every feature unit deviation first.
        seed: decides the held-out images, weights and order.

    Raises:
        UserError: the features are not of one backbone, or the labels do not suit the protocol.
    """
    from siamtransfer.evaluation.linear.evaluate import probe_features

    if protocol not in ("logistic", "sweep"):
        raise UserError(
            f"linear_probe has the protocols logistic and sweep, not {protocol!r}; the published ones train "
            "on images: take the program `siamtransfer linear`"
        )
    config = LinearConfig(
        protocol=protocol,
        strengths=list(strengths),
        lrs=list(lrs),
        optimizers=list(optimizers),
        standardise=standardise,
        seed=seed,
        device=device,
    )
    config.check()
    data = describe_features(train, test)
    with start_runtime(device, "float32") as runtime:
        return probe_features(data, config, runtime)


def diagnose(
    features: FeatureSource,
    *,
    sample: int = 25600,
    restarts: int = 10,
    seed: int = 0,
    device: str = "auto",
) -> Result:
    """Collapse, rank, spectrum and, with labels, clusters of a representation, as `NAME/backbone`.

    Args:
        sample: number of images for what needs pairs and clusters; 0 is all.
        restarts: random starts of k-means; 0 is no clusters.

    Raises:
        UserError: an option means nothing.
    """
    from siamtransfer.evaluation.diagnostics.evaluate import measure_models
    from siamtransfer.evaluation.diagnostics.model_features import describe_model

    config = DiagnoseConfig(sample=sample, restarts=restarts, seed=seed, device=device)
    config.check()
    data = describe_features(features, None, labelled=False)
    with start_runtime(device, "float32") as runtime:
        return measure_models([describe_model(data, config)], config, runtime.device)


def open_backbone(source: BackboneSource) -> tuple[nn.Module, ReadBackbone]:
    """The module, and what is known of it; of a module that was not read from a checkpoint that is the digest
    of its weights, with ImageNet's normalisation."""
    if isinstance(source, str | Path):
        return load_backbone(source)
    backbone: nn.Module = source[0] if isinstance(source, tuple) else source
    attributes = source[1:] if isinstance(source, tuple) else vars(source).values()
    read = next((value for value in attributes if isinstance(value, ReadBackbone)), None)
    digest = digest_of(backbone.state_dict())
    if read is not None:  # the weights may have been changed since
        return backbone, replace(read, digest=digest)
    name = getattr(backbone, "name", type(backbone).__name__)
    return backbone, ReadBackbone(
        path=name,
        state={},
        name=name,
        width=getattr(backbone, "width", None),
        stem=getattr(backbone, "stem", None),
        format="module",
        branch="module",
        branches=("module",),
        normalisation=IMAGENET,
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


def choose_transform(
    read: ReadBackbone, image_size: int | None, *, crop: int | None, resize: int | None
) -> Transform:
    """The evaluation transform of a backbone, as the programs choose it."""
    views = (read.meta.get("config") or {}).get("views")
    view = ViewsConfig.from_dict(views).build().views[0] if views else None
    side = crop or (view.size if view else image_size or 224)
    interpolation = view.interpolation if view else "bilinear"
    mean, std = read.normalisation
    transform = evaluation_transform(side, image_size, mean, std, interpolation)
    return replace(transform, resize=resize) if resize else transform


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
        digests = [origin.backbone["weights_digest"] for origin in (first.origin, last.origin)]
        if digests[0] != digests[1]:
            raise UserError("train and test are features of different weights: use one backbone for both")
        if first.origin.settings != last.origin.settings:
            raise UserError(
                f"train and test were extracted differently: {first.origin.settings} and "
                f"{last.origin.settings}"
            )


def _digest_of_features(features: Features) -> str:
    return hashlib.sha256(np.ascontiguousarray(features.features).data).hexdigest()


def _origin(read: ReadBackbone, images: ImageSet, transform: Transform, runtime: Runtime) -> FeatureOrigin:
    backbone = {
        "backbone": read.path,
        "architecture": {"name": read.name, "width": read.width, "stem": read.stem},
        "format": read.format,
        "branch": read.branch,
        "weights_digest": read.digest,
    }
    settings = {"transform": asdict(transform), "layers": OUTPUT, "precision": runtime.precision}
    return FeatureOrigin(f"{images.name}/{images.split}", images.fingerprint, backbone, settings)


@contextlib.contextmanager
def _moved(module: nn.Module, device: torch.device) -> Iterator[None]:
    """The module on `device`, and afterwards where it was."""
    tensor = next(iter(module.state_dict().values()), None)
    module.to(device)
    try:
        yield
    finally:
        if tensor is not None:
            module.to(tensor.device)


def _on_every_rank(result: Result | None) -> Result:
    if result is None:
        raise RuntimeError("only rank 0 has the result: call it in one process, or use the program")
    return result
