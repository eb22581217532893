"""From a checkpoint and a set's name to labelled features: what every evaluator begins with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from siamtransfer.backbones.backbone import Backbone
from siamtransfer.backbones.feature_layers import OUTPUT, FeatureLayers
from siamtransfer.backbones.fold_batchnorm import fold_batchnorm
from siamtransfer.backbones.resnet import ResNetBackbone
from siamtransfer.checkpoints.formats import IMAGENET
from siamtransfer.checkpoints.read_backbone import ReadBackbone, digest_of, load_backbone
from siamtransfer.data import ImageSet, open_labelled
from siamtransfer.data.registry import NAMED
from siamtransfer.distributed import collectives
from siamtransfer.distributed.runtime import Runtime, cpu_count
from siamtransfer.features.cache import FeatureCache
from siamtransfer.features.extract import Features, Transform, evaluation_transform, extract, extract_pixels
from siamtransfer.features.feature_file import read_feature_file
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import digest_of_file, refuse_record
from siamtransfer.utils.log import say
from siamtransfer.views.config import ViewsConfig


@dataclass
class EvaluationData:
    """The labelled images. What is not given is taken from the checkpoint's own record, if it has one."""

    name: str | None = None
    """A named set (fashion-scenes, cifar10, imagenet, food101, pets, voc07, folder …)."""
    root: str | None = None
    """Folder of the images."""
    list_file: str | None = None
    """Text file of paths of the train part."""
    test_split: str | None = None
    """Part that is scored; null: test or val where there is one."""
    size: int | None = None
    """Side in pixels of the embedded scenes."""
    count: int | None = None
    """Number of embedded scenes in the train part."""
    download: bool = False
    """Let torchvision download a missing set."""
    workers: int | None = None
    """Processes that decode; null: what the machine has."""


@dataclass
class EvaluationConfig:
    """What the evaluators share."""

    data: EvaluationData = field(default_factory=EvaluationData)
    train_features: str | None = None
    """An .npz of features[N,D] and labels[N] of any framework, instead of a checkpoint and images."""
    test_features: str | None = None
    """The same for the part that is scored."""
    branch: str | None = None
    """Which backbone of the checkpoint: student, teacher, key, ema …; null: the one that its format names
    first."""
    trust_pickle: bool = False
    """Let the checkpoint run Python code on loading; only for files of people you trust."""
    layers: str = OUTPUT
    """Where the features come from: output, layer1 to layer4 of a ResNet, blockN, lastN or mean of a ViT, or
    several joined by +."""
    crop: int | None = None
    """Side of the central crop; null: the pretraining views' size, or 224."""
    resize: int | None = None
    """Length of the shorter side before the crop; null: 8/7 of the crop, none for sets of that very size."""
    batch: int = 256
    """Images that go through the backbone at once."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic of the backbone; auto: bfloat16 or float16 on GPUs, float32 on the CPU."""
    cache: str | None = None
    """Folder for extracted features; null: the user's cache folder, none: do not keep them."""
    record: str | None = None
    """Write the record there, too (OUT.json); predictions of every sample go beside it as .npz."""

    def __post_init__(self) -> None:
        refuse_record(self.record)


@dataclass
class LabelledFeatures:
    """Train and test features with labels; `test` is None for leave-one-out on train. `images` are the sets
    that they come from, train and test, where there are such."""

    train: Features
    test: Features | None
    protocol: dict[str, Any]
    provenance: dict[str, Any]
    images: tuple[ImageSet, ImageSet | None] | None = None


@dataclass
class FrozenModel:
    """What is evaluated, and on what: a frozen backbone (None for raw pixels) and the images to score it
    on."""

    source: str
    backbone: Backbone | None
    read: ReadBackbone | None
    train: ImageSet
    test: ImageSet | None
    transform: Transform
    runtime: Runtime
    config: EvaluationConfig
    workers: int

    def features(self, images: ImageSet, selections: Sequence[str] = (OUTPUT,)) -> Features:
        """The features of a labelled set, in its order; several selections of layers side by side."""
        assert images.labels is not None
        labels = torch.from_numpy(np.ascontiguousarray(images.labels))
        return Features(self._extract(images, selections), labels)

    @property
    def protocol(self) -> dict[str, Any]:
        """What moves the numbers, as far as data and features go."""
        train, test = self.train, self.test
        return {
            "train": f"{train.name}/{train.split}",
            "train_images": len(train),
            "test": f"{test.name}/{test.split}" if test else "leave-one-out on train",
            "test_images": len(test or train),
            "transform": asdict(self.transform),
            "layers": self.config.layers,
            "precision": self.runtime.precision,
            **({"metric": NAMED[train.name].metric} if train.name in NAMED else {}),
        }

    @property
    def provenance(self) -> dict[str, Any]:
        """What the numbers are of."""
        read, test = self.read, self.test
        return {
            "backbone": self.source,
            "architecture": {"name": read.name, "width": read.width, "stem": read.stem} if read else None,
            "format": read.format if read else None,
            "branch": read.branch if read else None,
            "weights_digest": read.digest if read else None,
            "train_fingerprint": self.train.fingerprint,
            "test_fingerprint": test.fingerprint if test else None,
        }

    def require_untouched(self) -> None:
        """Raises RuntimeError when a tensor of the backbone is not what was read, bit for bit."""
        if self.backbone and self.read and digest_of(self.backbone.state_dict()) != self.read.digest:
            raise RuntimeError(f"the frozen backbone of {self.source} has changed while it was evaluated")

    def _extract(self, images: ImageSet, selections: Sequence[str]) -> torch.Tensor:
        if self.backbone is None or self.read is None:
            return extract_pixels(images, self.transform, workers=self.workers)
        layers, runtime, cache = FeatureLayers(self.backbone, selections), self.runtime, _cache(self.config.cache)
        path = kept = None
        if cache:
            path = cache.path(
                self.read.digest, images.fingerprint, self.transform, runtime.precision, layers.layers
            )
            kept = cache.read(path, len(images))
        if kept is not None:
            return kept
        if runtime.is_main:
            say(f"extracting features of {len(images)} images of {images.name}/{images.split}")
        if isinstance(self.backbone, ResNetBackbone):
            layers.backbone = fold_batchnorm(self.backbone)
        layers.to(memory_format=torch.channels_last)
        features = extract(
            layers, images, self.transform, runtime, batch=self.config.batch, workers=self.workers
        )
        if cache and path and runtime.is_main:
            cache.write(path, features)
        return features


def open_frozen_model(source: str | None, config: EvaluationConfig, runtime: Runtime) -> FrozenModel:
    """Reads the checkpoint (or makes the baseline) and opens the images; extracts nothing yet.

    Raises:
        UserError: there is no source, or anything that reading the file or the images finds.
    """
    if source is None:
        raise UserError(
            "give a checkpoint, a baseline (random:NAME, torchvision:NAME, pixels), or --train-features and "
            "--test-features"
        )
    backbone, read = (
        (None, None)
        if source == "pixels"
        else load_backbone(source, branch=config.branch, trust_pickle=config.trust_pickle)
    )
    if backbone is not None:
        FeatureLayers(backbone, [config.layers])  # a mistake is told before the images are opened
    elif config.layers != OUTPUT:
        raise UserError(f"raw pixels have no layer {config.layers!r}: leave --layers out")
    recorded = _recorded(read)
    with collectives.rank_by_rank(needed=config.data.download):
        train, test = _open(config.data, recorded.get("data", {}), source)
    if backbone is not None:
        backbone.to(runtime.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return FrozenModel(
        source,
        backbone,
        read,
        train,
        test,
        _transform(config, train, read, recorded),
        runtime,
        config,
        _workers(config.data, train, runtime),
    )


def labelled_features(
    source: str | None, config: EvaluationConfig, runtime: Runtime, *, mapped: bool = False
) -> LabelledFeatures:
    """Features of a checkpoint, of a named baseline (`random:resnet50`, `pixels`), or of two .npz files, of
    which the train part stays on disk if `mapped`.

    Raises:
        UserError: neither or both ways are given, or anything that reading the file or the images finds.
    """
    if config.train_features or config.test_features:
        if source is not None:
            raise UserError(f"give either a checkpoint ({source}) or feature files, not both")
        return _from_files(config, mapped)
    subject = open_frozen_model(source, config, runtime)
    train, test = subject.train, subject.test
    found = [subject.features(part, [config.layers]) for part in (train, test) if part]
    return LabelledFeatures(
        found[0], found[1] if test else None, subject.protocol, subject.provenance, (train, test)
    )


def _from_files(config: EvaluationConfig, mapped: bool) -> LabelledFeatures:
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
    digests = {
        "train_digest": digest_of_file(config.train_features),
        "test_digest": digest_of_file(config.test_features),
    }
    return LabelledFeatures(train, test, protocol, digests)


def _recorded(read: ReadBackbone | None) -> dict[str, Any]:
    """The pretraining configuration that our own checkpoints carry."""
    return (read.meta.get("config") or {}) if read else {}


def _open(data: EvaluationData, recorded: dict[str, Any], source: str) -> tuple[ImageSet, ImageSet | None]:
    """The labelled sets as asked for; where no name was given, as the checkpoint records them."""
    asked = {
        key: value for key, value in asdict(data).items() if key != "workers" and value not in (None, False)
    }
    if "name" not in asked:
        if not recorded.get("name"):
            raise UserError(f"{source} does not say which images to score it on: name them with --data.name")
        keys = ("name", "root", "list_file", "test_split", "size", "count")
        asked = {key: recorded[key] for key in keys if recorded.get(key) is not None} | asked
    return open_labelled(asked.pop("name"), **asked)


def _transform(
    config: EvaluationConfig, train: ImageSet, read: ReadBackbone | None, recorded: dict[str, Any]
) -> Transform:
    views = recorded.get("views")
    view = ViewsConfig.from_dict(views).build().views[0] if views else None
    crop = config.crop or (view.size if view else train.image_size or 224)
    mean, std = read.normalisation if read else IMAGENET
    usual = evaluation_transform(
        crop, train.image_size, mean, std, view.interpolation if view else "bilinear"
    )
    return Transform(**{**asdict(usual), "resize": config.resize}) if config.resize else usual


def _workers(data: EvaluationData, images: ImageSet, runtime: Runtime) -> int:
    if data.workers is not None:
        return data.workers
    return 0 if images.image_size is not None else min(8, max(1, cpu_count() // runtime.local_world_size))


def _cache(folder: str | None) -> FeatureCache | None:
    if folder == "none":
        return None
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return FeatureCache(Path(folder) if folder else home / "siamtransfer" / "features")
