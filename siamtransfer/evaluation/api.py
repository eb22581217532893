"""The evaluators as functions for notebooks and scripts: features in, results out.

    features = extract_features("checkpoint.pth", images)
    print(knn(train_features, test_features, k=20))

They do not end the process and print nothing; messages go through the logger `siamtransfer`. A result holds
the protocol and the provenance that the program of the same name records.

Legend: N images, D features, C classes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Literal

import numpy as np
import torch
from torch import nn

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.feature_layers import OUTPUT
from siamtransfer.checkpoints.assumptions import frozen_provenance
from siamtransfer.checkpoints.read_backbone import ReadBackbone
from siamtransfer.data.imageset import ImageSet, channels_of
from siamtransfer.distributed.runtime import Precision, Runtime, start_runtime
from siamtransfer.evaluation.api_inputs import (
    BackboneSource,
    FeatureSource,
    ImageSource,
    as_image_set,
    describe_features,
    open_backbone,
)
from siamtransfer.evaluation.config import EvaluationConfig
from siamtransfer.evaluation.diagnostics.config import DiagnoseConfig
from siamtransfer.evaluation.evaluator import with_cost
from siamtransfer.evaluation.frozen_model import FrozenModel
from siamtransfer.evaluation.knn.config import KnnConfig, NeighbourMetric
from siamtransfer.evaluation.linear.config import LRS, STRENGTHS, LinearConfig, ProbeOptimizer
from siamtransfer.evaluation.transform import choose_transform
from siamtransfer.features.extract import (
    FeatureOrigin,
    Features,
    Transform,
    extract,
)
from siamtransfer.records.result import Result
from siamtransfer.utils.errors import UserError


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
    normalisation: str | None = None,
) -> Features:
    """Features float32[N, D] of every image in order, with the labels that the set has and their origin.

    Args:
        layers: where they come from, such as `output`, `layer3`, `last4` or several joined by `+`.
        crop: side of the central crop; None is the size of the views in pretraining, or of the images, or
            224.
        resize: length of the shorter side before the crop; None is 8/7 of the crop, and none for images of
            that very size.
        workers: processes that decode.
        normalisation: of the images in pretraining, where neither the checkpoint nor its format says:
            imagenet, half, none, cifar10 ..., or m,m,m/s,s,s. `load_backbone` takes whatever else is open.

    Raises:
        UserError: the checkpoint, the images or the layers cannot be used, the images have another number of
            channels than the backbone takes, or a feature is not finite.
        UnreadableImage: an image cannot be read.
    """
    backbone, read = open_backbone(backbone_or_source, normalisation)
    image_set = as_image_set(images)
    transform = choose_transform(read, image_set.image_size, crop=crop, resize=resize)
    taken, channels = len(transform.mean), channels_of(image_set)
    if taken != channels:
        raise UserError(
            f"{read.path} takes images normalised in {taken} channels, and these have {channels}: give "
            f"others, or, of a module of your own, a normalisation of {channels} numbers"
        )
    with start_runtime(device, precision) as runtime, moved(backbone, runtime.device):
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


@with_cost
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


@with_cost
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


@with_cost
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


def _origin(read: ReadBackbone, images: ImageSet, transform: Transform, runtime: Runtime) -> FeatureOrigin:
    backbone = frozen_provenance(read.path, read)
    settings = {"transform": asdict(transform), "layers": OUTPUT, "precision": runtime.precision}
    return FeatureOrigin(f"{images.name}/{images.split}", images.fingerprint, backbone, settings)


@contextlib.contextmanager
def moved(module: nn.Module, device: torch.device) -> Iterator[None]:
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
