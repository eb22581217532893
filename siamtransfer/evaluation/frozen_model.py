"""From a checkpoint and the name of a set to labelled features: the first step of every evaluator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.feature_layers import OUTPUT, FeatureLayers
from siamtransfer.backbones.fold_batchnorm import fold_batchnorm
from siamtransfer.backbones.resnet import ResNetBackbone
from siamtransfer.checkpoints.assumptions import frozen_provenance, say_assumptions
from siamtransfer.checkpoints.declaration import FORMAT
from siamtransfer.checkpoints.read_backbone import ReadBackbone, digest_of, load_backbone
from siamtransfer.data import ImageSet, UnreadableImage
from siamtransfer.data.imageset import channels_of, content_fingerprint
from siamtransfer.data.registry import NAMED
from siamtransfer.data.report.overview import say_overview
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime
from siamtransfer.evaluation.branch_of_test import open_test_branch, protocol_of_test, provenance_of_test
from siamtransfer.evaluation.config import EvaluationConfig
from siamtransfer.evaluation.labelled_images import (
    count_workers,
    form_of,
    names_of,
    open_images,
    require_channels,
    require_columns,
)
from siamtransfer.evaluation.transform import choose_transform, recorded_config
from siamtransfer.evaluation.unreadable import leave_out_unreadable
from siamtransfer.features.cache import FeatureCache, feature_cache
from siamtransfer.features.extract import (
    FeatureOrigin,
    Features,
    Pass,
    Transform,
    extract_pixels,
    extract_share,
    pixel_transform,
)
from siamtransfer.features.feature_file import read_feature_file
from siamtransfer.features.readable import FeatureBlock, feature_blocks
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import digest_of_file
from siamtransfer.utils.log import say


@dataclass
class LabelledFeatures:
    """Train and test features with labels.

    Attributes:
        test: None for leave-one-out on train.
        protocol: what moves the numbers, as far as images and features go.
        provenance: what the features were computed from.
        images: the train and test sets; None where the features come from files.
        model: what the features were computed by; None where they come from files.
    """

    train: Features
    test: Features | None
    protocol: dict[str, Any]
    provenance: dict[str, Any]
    images: tuple[ImageSet, ImageSet | None] | None = None
    model: FrozenModel | None = None


@dataclass
class FrozenModel:
    """A frozen backbone and the images to score it on.

    Attributes:
        source: the checkpoint's path, or the name of a baseline.
        backbone, read: None for raw pixels.
        workers: processes that decode.
        witness: what the batch norms say of the reading (see norm_witness.py), for the record; None where
            they were not asked.
        left_out: what the protocol says of images that could not be read (see unreadable.py).
        for_test: the model with the backbone that sees the test images, where it is another.
    """

    source: str
    backbone: Backbone | None
    read: ReadBackbone | None
    train: ImageSet
    test: ImageSet | None
    transform: Transform
    runtime: Runtime
    config: EvaluationConfig
    workers: int
    witness: dict[str, Any] | None = None
    left_out: dict[str, Any] = field(default_factory=dict)
    for_test: FrozenModel | None = None

    def features(self, images: ImageSet, selections: Sequence[str] = (OUTPUT,)) -> Features:
        """The features of a labelled set, in its order; several selections of layers side by side.

        Raises:
            UnreadableImage: an image cannot be read.
            UserError: a feature is not finite.
        """
        labels = None if images.labels is None else torch.from_numpy(np.array(images.labels))
        origin = FeatureOrigin(
            f"{images.name}/{images.split}",
            images.fingerprint,
            frozen_provenance(self.source, self.read),
            self._feature_settings,
        )
        return Features(self._extract(images, selections), labels, origin)

    @property
    def protocol(self) -> dict[str, Any]:
        """What moves the numbers, as far as images and features go."""
        train, test = self.train, self.test
        return {
            "train": f"{train.name}/{train.split}",
            "train_images": len(train),
            **({} if self.config.data.few is None else {"train_drawn": self.config.data.few}),
            "test": f"{test.name}/{test.split}" if test else "leave-one-out on train",
            "test_images": len(test or train),
            **self._feature_settings,
            **({} if self.for_test is None else protocol_of_test(self.transform, self.for_test.transform)),
            **form_of(train, test),
            **self.left_out,
            **({"metric": NAMED[train.name].metric} if train.name in NAMED else {}),
        }

    @property
    def provenance(self) -> dict[str, Any]:
        """What the numbers are computed from."""
        return {
            **frozen_provenance(self.source, self.read),
            **({"witness": self.witness} if self.witness else {}),
            **({} if (other := self.for_test) is None else provenance_of_test(other.read, other.transform)),
            "train_fingerprint": self.train.fingerprint,
            "test_fingerprint": self.test.fingerprint if self.test else None,
            **names_of(self.train, self.test),
        }

    @property
    def _feature_settings(self) -> dict[str, Any]:
        return {
            "transform": asdict(self.transform),
            "layers": self.config.layers,
            "precision": self.runtime.precision,
        }

    def require_untouched(self) -> None:
        """Raises RuntimeError when a tensor of a backbone is not what was read, bit for bit."""
        for model in filter(None, (self, self.for_test)):
            if model.backbone and model.read and digest_of(model.backbone.state_dict()) != model.read.digest:
                raise RuntimeError(f"the frozen backbone of {self.source} has changed while it was evaluated")

    def _extract(self, images: ImageSet, selections: Sequence[str]) -> torch.Tensor:
        if self.backbone is None or self.read is None:
            return extract_pixels(images, self.transform, workers=self.workers, runtime=self.runtime)
        layers, cache = FeatureLayers(self.backbone, selections), feature_cache(self.config.cache)
        if cache is None:
            share = self._forward_share(images, layers)
            return collectives.all_gather_rows(share, len(images), self.runtime.device)
        path = self._kept_file(cache, self.read, images, layers)
        return cache.read_or_extract(
            path, len(images), lambda: self._forward_share(images, layers), self.runtime.device
        )

    def has_kept(self, images: ImageSet, selections: Sequence[str] = (OUTPUT,)) -> bool:
        """Whether the cache has the features of these images, whole or damaged."""
        cache = feature_cache(self.config.cache)
        if self.backbone is None or self.read is None or cache is None:
            return False
        return self._kept_file(cache, self.read, images, FeatureLayers(self.backbone, selections)).is_file()

    def _kept_file(
        self, cache: FeatureCache, read: ReadBackbone, images: ImageSet, layers: FeatureLayers
    ) -> Path:
        with collectives.own_pace("fingerprinting the images"):
            content = content_fingerprint(images)
        return cache.path(
            f"{read.digest} {read.architecture!r}",
            content,
            self.transform,
            self.runtime.precision,
            layers.layers,
        )

    def _forward_share(self, images: ImageSet, layers: FeatureLayers) -> torch.Tensor:
        if self.runtime.is_main:
            say(f"extracting features of {len(images)} images of {images.name}/{images.split}")
        return extract_share(self.prepared(layers), images, self.transform, self._pass)

    def feature_blocks(
        self, images: ImageSet, selections: Sequence[str] = (OUTPUT,)
    ) -> Iterator[FeatureBlock]:
        """The rows of `features` of the readable images, a batch at a time and without the cache, and what is
        wrong with the others; see `siamtransfer.features.readable.feature_blocks`. For one process.

        Raises:
            UserError: a feature is not finite.
        """
        layers = None if self.backbone is None else self.prepared(FeatureLayers(self.backbone, selections))
        return feature_blocks(layers, images, self.transform, self._pass)

    def prepared(self, layers: FeatureLayers) -> FeatureLayers:
        """`layers` as a pass over many images runs them."""
        if isinstance(self.backbone, ResNetBackbone):
            layers.backbone = fold_batchnorm(self.backbone)
        layers.to(memory_format=torch.channels_last)
        return layers

    @property
    def _pass(self) -> Pass:
        return Pass(self.runtime, self.config.forward_batch_size, self.workers)


def open_frozen_model(source: str | None, config: EvaluationConfig, runtime: Runtime) -> FrozenModel:
    """Reads the checkpoint (or makes the baseline) and opens the images; extracts nothing yet.

    Raises:
        UserError: there is no source, or the checkpoint or the images cannot be read.
    """
    if source is None:
        raise UserError(
            "give a checkpoint, a baseline (random:NAME, torchvision:NAME, pixels), "
            "or --train-features and --test-features"
        )
    backbone, read = (
        (None, None)
        if source == "pixels"
        else load_backbone(source, branch=config.branch, trust_pickle=config.trust_pickle, options=config)
    )
    if read is not None and runtime.is_main:
        say_assumptions(read)
    if backbone is not None:
        FeatureLayers(backbone, [config.layers])  # refuses unknown layers before the images are opened
    elif config.layers != OUTPUT:
        raise UserError(f"raw pixels have no layer {config.layers!r}: leave --layers out")
    recorded = recorded_config(read).get("data", {})
    require_columns(config, recorded)
    with collectives.rank_by_rank("opening the images", needed=config.data.download):
        train, test = open_images(config.data, recorded, source, labels_needed=config.labels_needed)
    with collectives.own_pace("looking at the images"):
        if runtime.is_main:
            say_overview(train, test)
    other = open_test_branch(source, config, read, train, test)
    if backbone is not None:
        require_channels(source, backbone, train, *([test] if test and other is None else []))
        backbone.to(runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    elif test is not None and channels_of(test) != channels_of(train):
        raise UserError(
            f"raw pixels of {train.name} have {channels_of(train)} channels and those of {test.name} "
            f"{channels_of(test)}, which do not compare: name images of one number"
        )
    transform = choose_transform(read, train.image_size, crop=config.crop, resize=config.resize)
    if read is None and config.crop is None and config.resize is None:
        transform = pixel_transform(transform, len(train) + (len(test) if test else 0), channels_of(train))
    workers = count_workers(config.data, train, runtime)
    readable = leave_out_unreadable(train, test, config, runtime, workers)
    train, test = readable.train, readable.test
    witness = None
    with collectives.own_pace("asking the batch norms how the checkpoint is read"):
        if read is not None and runtime.is_main:
            witness = _ask_witness(read, train, transform, runtime)
    model = FrozenModel(
        source, backbone, read, train, test, transform, runtime, config, workers, witness, readable.record
    )
    if other is not None and test is not None:
        seen = choose_transform(other[1], test.image_size, crop=config.crop, resize=config.resize)
        other[0].to(runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        model.for_test = replace(model, backbone=other[0], read=other[1], transform=seen)
    return model


def _ask_witness(
    read: ReadBackbone, images: ImageSet, transform: Transform, runtime: Runtime
) -> dict[str, Any] | None:
    """Warns where the batch norms speak against the reading; returns what they say.

    Our own checkpoints record how they were trained, and an untrained network remembers nothing. Of images
    that are not RGB there are no usual readings to compare.
    """
    if read.format in (FORMAT, "random") or read.architecture.in_channels != 3:
        return None
    from siamtransfer.evaluation.norm_witness import warn_if_unlikely

    try:
        return warn_if_unlikely(read, images, side=transform.crop, device=runtime.device).as_dict()
    except UnreadableImage:  # the evaluation will say so
        return None


def labelled_features(
    source: str | None, config: EvaluationConfig, runtime: Runtime, *, mapped: bool = False
) -> LabelledFeatures:
    """Features of a checkpoint, of a named baseline (`random:resnet50`, `pixels`), or of two .npz files,
    whose train split stays on disk if `mapped`.

    Raises:
        UserError: there is neither a checkpoint nor feature files, or both, or something cannot be read.
    """
    if config.feature_files:
        if source is not None:
            raise UserError(f"give either a checkpoint ({source}) or feature files, not both")
        return _read_files(config, mapped=mapped)
    return features_of(open_frozen_model(source, config, runtime))


def features_of(model: FrozenModel) -> LabelledFeatures:
    """The features of both parts of the images of a backbone."""
    layers = [model.config.layers]
    train = model.features(model.train, layers)
    test = (model.for_test or model).features(model.test, layers) if model.test else None
    with collectives.own_pace("fingerprinting the images"):
        provenance = model.provenance
    return LabelledFeatures(train, test, model.protocol, provenance, (model.train, model.test), model)


def _read_files(config: EvaluationConfig, *, mapped: bool) -> LabelledFeatures:
    if not (config.train_features and config.test_features):
        raise UserError("feature files come in pairs: give both --train-features and --test-features")
    if config.layers != OUTPUT:
        raise UserError(f"feature files have no layer {config.layers!r} to choose: leave --layers out")
    train = read_feature_file(config.train_features, mapped=mapped)
    test = read_feature_file(config.test_features)
    if train.labels is not None and test.labels is not None and train.labels.ndim != test.labels.ndim:
        raise UserError(
            f"{config.train_features} and {config.test_features} have labels of different kinds: [N] in one "
            "and [N,C] in the other"
        )
    if train.features.shape[1] != test.features.shape[1]:
        raise UserError(
            f"{config.train_features} has features of width {train.features.shape[1]} and "
            f"{config.test_features} of {test.features.shape[1]}: they are not of one backbone"
        )
    protocol = {
        "train": config.train_features,
        "train_images": len(train.features),
        "test": config.test_features,
        "test_images": len(test.features),
    }
    files = {"train": config.train_features, "test": config.test_features}
    digests = {f"{part}_digest": digest_of_file(file) for part, file in files.items()}
    return LabelledFeatures(train, test, protocol, digests)
