"""The images of unknown classes: sets of images, random pixels, or feature files."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor

from siamtransfer.data import ImageSet, open_images
from siamtransfer.data.imageset import channels_of, fingerprint_of_arrays
from siamtransfer.data.labelled import find_test_split
from siamtransfer.data.registry import NAMED, unknown_set
from siamtransfer.distributed import collectives
from siamtransfer.evaluation.frozen_model import FrozenModel
from siamtransfer.evaluation.labelled_images import form_options, require_channels, shared_files
from siamtransfer.evaluation.named_folders import errors_of_set
from siamtransfer.evaluation.outside.config import NOISE, OutsideConfig
from siamtransfer.evaluation.transform import transform_of_others
from siamtransfer.evaluation.unreadable import leave_out_of
from siamtransfer.features.feature_file import read_feature_file
from siamtransfer.utils.errors import UserError
from siamtransfer.utils.files import digest_of_file
from siamtransfer.utils.log import say
from siamtransfer.utils.text import first_few, printable

NOISE_IMAGES = 1000


@dataclass(frozen=True)
class OutsideSet:
    """Features of unknown images.

    Attributes:
        features: [N, D].
        facts: what the protocol says of the images.
        fingerprint: of the images, or the digest of the feature file.
        remarks: on the set.
    """

    features: Tensor
    facts: dict[str, Any]
    fingerprint: str
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class NoiseImages:
    """Images of independent uniform values, as an ImageSet without labels; an image is a function of its
    number."""

    side: int
    channels: int
    count: int = NOISE_IMAGES
    name: str = NOISE
    split: str = "test"
    classes: tuple[str, ...] = ()
    labels: None = None

    @property
    def image_size(self) -> int:
        return self.side

    @property
    def fingerprint(self) -> str:
        return fingerprint_of_arrays(text=f"uniform noise {self.count} {self.side} {self.channels}")

    def __len__(self) -> int:
        return self.count

    def image(self, index: int) -> np.ndarray:
        """Image `index` as uint8[side, side, channels]."""
        shape = self.side, self.side, self.channels
        return np.random.default_rng([index, 0]).integers(0, 256, shape, dtype=np.uint8)

    def describe(self, index: int) -> str:
        return f"{self.name}/{self.split}[{index}]"


def open_outside(config: OutsideConfig, model: FrozenModel) -> dict[str, tuple[ImageSet, dict[str, Any]]]:
    """The readable images of the sets that `config.outside` names, by their names and the same on every rank,
    with what the protocol says of the others.

    Raises:
        UserError: a set cannot be opened, is the one that is known, or does not go with the checkpoint.
    """
    return {name: _open_set(name, folder, config, model) for name, folder in config.outside_sets.items()}


def outside_files(config: OutsideConfig, width: int) -> dict[str, OutsideSet]:
    """The same from feature files, whose features are of `width`."""
    known = {
        digest_of_file(path) for path in (config.train_features, config.test_features) if path is not None
    }
    return {name: _of_file(name, path, width, known) for name, path in config.outside_sets.items()}


def _of_file(name: str, path: str | None, width: int, known: set[str]) -> OutsideSet:
    if path is None or not path.endswith(".npz"):
        raise UserError(f"--outside {name} goes with feature files: say --outside {name}=FILE.npz")
    features = read_feature_file(path, labels_needed=False).tensor
    if features.shape[1] != width:
        raise UserError(
            f"{printable(path)} has features of width {features.shape[1]}, and those of train have {width}: "
            "they are not of one backbone"
        )
    digest = digest_of_file(path)
    if digest in known:
        raise UserError(f"--outside {name}={path} is a file of the known features: name one of others")
    return OutsideSet(features, {"images": len(features)}, digest)


def _open_set(
    name: str, folder: str | None, config: OutsideConfig, model: FrozenModel
) -> tuple[ImageSet, dict[str, Any]]:
    with collectives.rank_by_rank(f"opening {name}", needed=config.data.download):
        images = _open(name, folder, config, model)
    if model.backbone is not None:
        require_channels(model.source, model.backbone, images)
    images, left_out = leave_out_of(images, config, model.runtime, model.workers)
    with collectives.own_pace("looking for known images in outside sets"):
        for part in (model.train, model.test):
            if part is not None:
                _refuse_known(name, images, part)
    if model.runtime.is_main:
        say(f"{name}: {len(images):,} unknown images of {images.name}/{images.split}")
    return images, left_out


def _refuse_known(name: str, images: ImageSet, known: ImageSet) -> None:
    """Raises UserError where a set is a part of the known one, or some of its files are."""
    if images.fingerprint == known.fingerprint:
        raise UserError(f"--outside {name} is the very set that is known: name another")
    if shared := shared_files(images, known):
        raise UserError(
            f"{len(shared)} of the {len(images)} images of --outside {name} are images of the known set, too "
            f"({printable(first_few(shared))}): name a folder of others"
        )


def features_of_set(name: str, images: ImageSet, left_out: dict[str, Any], model: FrozenModel) -> OutsideSet:
    """The features of an outside set by the transform of the known images."""
    transform = transform_of_others(model.transform, images.image_size)
    facts = {"set": f"{images.name}/{images.split}", "images": len(images), "resize": transform.resize}
    with collectives.own_pace("fingerprinting the images"):
        fingerprint = images.fingerprint
    features = replace(model, transform=transform).features(images, [model.config.layers]).tensor
    return OutsideSet(features, facts | left_out, fingerprint, _shared_classes(name, images, model.train))


def _open(name: str, folder: str | None, config: OutsideConfig, model: FrozenModel) -> ImageSet:
    if folder is None and name == NOISE:
        return NoiseImages(model.transform.crop, channels_of(model.train))
    if name == NOISE:
        raise UserError(f"--outside {NOISE} is random pixels and has no folder: give {folder} another name")
    known = name in NAMED
    if folder is None and not known:
        raise UserError(
            f"--outside {name} is a name alone, and neither {NOISE} nor a set that is known by name: for "
            f"images of your own say --outside {name}=FOLDER ({unknown_set(name)})"
        )
    if folder is None and NAMED[name].needs:
        raise UserError(f"--outside {name} needs the folder of the set: say --outside {name}=FOLDER")
    kind = name if known else "flat"
    options = form_options(model.train, config.data, kind)
    if config.data.download and "download" in NAMED[kind].takes:
        options["download"] = True
    split = (find_test_split(kind, folder, None) if known else None) or "train"
    if folder is not None and "root" not in NAMED[kind].takes:
        raise UserError(f"--outside {name} is embedded and has no folder: leave ={folder} out")
    with errors_of_set("--outside", name, folder):
        return open_images(kind, root=folder, split=split, **options)


def _shared_classes(name: str, images: ImageSet, train: ImageSet) -> list[str]:
    """A remark where classes of a set have the names of known ones."""
    known = {each.casefold() for each in train.classes}
    shared = [printable(each) for each in images.classes if each.casefold() in known]
    if not shared:
        return []
    return [
        f"{len(shared)} classes of {name} have the names of known ones ({first_few(shared)}): if they are "
        "the same, its images are not all unknown"
    ]
